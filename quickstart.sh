#!/usr/bin/env bash
# Install into .venv, then train, evaluate and run teacher, student and DCD student on synthetic data.
# Options go to scripts/quickstart.py, e.g. --output DIR, --cases N.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup_venv.sh
setup_venv requirements.txt
exec "$PYTHON" scripts/quickstart.py "$@"
