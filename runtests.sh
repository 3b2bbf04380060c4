#!/usr/bin/env bash
# The gate, the same locally and in CI: style, types, generated files, tests.
#   ./runtests.sh            everything
#   ./runtests.sh --quick    without the tests marked slow
#   ./runtests.sh --setup    only install
#   ./runtests.sh --integration   install MONAI Label and MONAI Deploy, too, and run the tests that need them, alone
# Further arguments go to pytest, e.g. ./runtests.sh --quick -k wavelets
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup_venv.sh
setup_venv requirements-dev.txt
# two cores: one thread in each of two test processes beats two threads in one
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
marker=()
case "${1:-}" in
--setup) exit 0 ;;
--quick) shift; marker=(-m "not slow") ;;
--integration)
    shift
    scripts/monai_label.sh --setup
    scripts/monai_deploy.sh --setup
    export DCD_INTEGRATION=1 # from now on a missing environment is a failure
    # one server in one process, the apps in the other
    exec "$PYTHON" -m pytest -n "${DCD_TEST_WORKERS:-2}" --dist loadfile -m integration --durations 10 "$@"
    ;;
esac
step() { echo "[$(date +%H:%M:%S)] $*"; "$@"; }
step "$PYTHON" -m ruff check .
step "$PYTHON" -m ruff format --check .
step "$PYTHON" -m mypy
step "$PYTHON" scripts/build_bundles.py --check
step "$PYTHON" -m pytest -n "${DCD_TEST_WORKERS:-2}" --dist worksteal --durations 10 ${marker[@]+"${marker[@]}"} "$@"
