# Sourced by monai_label.sh and monai_deploy.sh: an environment of its own for a tool whose pins contradict ours.
# Usage: setup_tool_venv VENV FOLDER NEWEST_PYTHON   (FOLDER has requirements.txt and constraints.txt; sets $PYTHON)
# Calls the caller's after_install for what pip cannot resolve by itself.
install() {
    # pip reports the contradicting pins each time; what matters is that the imports in after_install work
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$constraints" "$@" \
        2> >(grep -v -e "is ignored" -e "dependency resolver" -e "is not installed" -e "is incompatible" >&2)
}

setup_tool_venv() {
    local venv="$1" folder="$2" newest="$3" stamp wanted
    constraints="$folder/constraints.txt"
    PYTHON="$venv/bin/python"
    stamp="$venv/.installed"
    wanted="$(cat "$folder"/*.txt "$0" | sha256sum | cut -d' ' -f1)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    local python3="${DCD_PYTHON:-python3}"
    if ! "$python3" -c "import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= ($(echo "$newest" | tr . ,)))"; then
        echo "error: no Python that fits – $python3 – expected 3.10 to $newest, found $("$python3" --version 2>&1) – set DCD_PYTHON" >&2
        return 1
    fi
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
