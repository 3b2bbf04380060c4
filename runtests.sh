#!/usr/bin/env bash
# The gate, the same locally, before a commit and in CI.
#   ./runtests.sh                 everything: style, types, allowed imports, generated files, package, tests
#   ./runtests.sh --style         everything but the package and the tests: seconds
#   ./runtests.sh --quick         without the tests marked slow
#   ./runtests.sh --setup         only install
#   ./runtests.sh --fuzz [N]      only damaged and hostile inputs, N of them (default 5000); writes the counts into docs/checks.md
#   ./runtests.sh --integration   install MONAI Label, MONAI Deploy and nnU-Net, too, and run the tests that need them, alone
# Further arguments go to pytest, e.g. ./runtests.sh --quick -k wavelets
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup_venv.sh
setup_venv requirements-dev.txt
# of two cores: one thread in each of three test processes, as tests wait for processes of their own a third of the time
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
step() { echo "[$(date +%H:%M:%S)] $*"; "$@"; }
pytest() { step "$PYTHON" -m pytest -n "${DCD_TEST_WORKERS:-3}" --durations 10 "$@"; }

check_style() {
    step "$PYTHON" -m mypy & # one core, most of the time
    step "$PYTHON" -m ruff check .
    step "$PYTHON" -m ruff format --check .
    step "$(dirname "$PYTHON")/lint-imports" --no-logo --no-cache
    step "$PYTHON" scripts/build_bundles.py --check
    "$@"
    wait $!
}

# source archive and wheel as they would be published; without isolation, so that it works offline
check_package() {
    scratch="$(mktemp -d)"
    trap 'rm -rf "$scratch"' EXIT
    "$PYTHON" -m build --no-isolation --outdir "$scratch" . >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; return 1; }
    "$PYTHON" -m twine --no-color check --strict "$scratch"/*.whl "$scratch"/*.tar.gz
}

case "${1:-}" in
--setup) ;;
--style) check_style true ;;
--fuzz)
    shift
    case "${1:-}" in [0-9]*) number="$1" && shift ;; *) number=5000 ;; esac
    DCD_FUZZ="$number" pytest --dist worksteal tests/fuzz "$@"
    ;;
--integration)
    shift
    scripts/monai_label.sh --setup
    scripts/monai_deploy.sh --setup
    scripts/nnunet.sh --setup
    export DCD_INTEGRATION=1 # from now on a missing environment is a failure
    # one server in one process, the apps in the other
    DCD_TEST_WORKERS="${DCD_TEST_WORKERS:-2}" pytest --dist loadfile -m integration "$@"
    ;;
*)
    marker=()
    if [ "${1:-}" = --quick ]; then
        shift
        marker=(-m "not slow")
    fi
    check_style step check_package
    pytest --dist worksteal ${marker[@]+"${marker[@]}"} "$@"
    ;;
esac
