# Sourced by monai_label.sh and monai_deploy.sh: an environment of its own for a tool whose pins contradict ours.
# Usage: setup_tool_venv VENV FOLDER   (FOLDER has requirements.txt and constraints.txt; sets $PYTHON)
# Calls the caller's after_install for what pip cannot resolve by itself.
install() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$constraints" "$@" 2> >(grep -v "is ignored" >&2)
}

setup_tool_venv() {
    local venv="$1" folder="$2" stamp wanted
    constraints="$folder/constraints.txt"
    PYTHON="$venv/bin/python"
    stamp="$venv/.installed"
    wanted="$(cat "$folder"/*.txt "$root/pyproject.toml" "$0" | sha256sum | cut -d' ' -f1)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    local python3="${DCD_PYTHON:-python3}"
    echo "[setup] installing into $venv (a few minutes, once)"
    [ -x "$PYTHON" ] || "$python3" -m venv "$venv"
    # torch first: resolved together with the rest, pip may prefer a newer one
    install torch==2.13.0
    install -r "$folder/requirements.txt"
    install --no-deps -e "$root"
    after_install
    echo "$wanted" >"$stamp"
    echo "[setup] done"
}
