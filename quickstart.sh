#!/usr/bin/env bash
# Install into .venv, segment a real case with shipped weights, then train, evaluate and run teacher, student and DCD
# student on synthetic data.
# Options go to scripts/quickstart.py, e.g. --output DIR, --cases N.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup_venv.sh
setup_venv requirements.txt
exec "$PYTHON" -m scripts.quickstart "$@"
