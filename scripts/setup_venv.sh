# Sourced by quickstart.sh and runtests.sh: make .venv once, and again whenever the requirements change.
# Usage: setup_venv REQUIREMENTS_FILE   (sets $PYTHON)
setup_venv() {
    local requirements="$1" venv="${DCD_VENV:-.venv}" stamp wanted
    PYTHON="$venv/bin/python"
    stamp="$venv/.installed-$(basename "$requirements")"
    wanted="$(cat "$requirements" requirements.txt constraints.txt pyproject.toml | sha256sum | cut -d' ' -f1)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        echo "[setup] $venv is up to date"
        return
    fi
    local python3="${DCD_PYTHON:-python3}"
    if ! "$python3" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: Python is too old – $python3 – expected >= 3.10, found $("$python3" --version 2>&1) – set DCD_PYTHON" >&2
        return 1
    fi
    echo "[setup] installing into $venv (about two minutes, once)"
    [ -x "$PYTHON" ] || "$python3" -m venv "$venv"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -r "$requirements" 2> >(grep -v "is ignored" >&2)
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt -e . 2> >(grep -v "is ignored" >&2)
    echo "$wanted" >"$stamp"
    echo "[setup] done"
}
