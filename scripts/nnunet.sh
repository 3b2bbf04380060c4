#!/usr/bin/env bash
# Install nnU-Net v2 into .venv-nnunet (once), for the tests that compare with it, and run one of its commands there.
#   scripts/nnunet.sh nnUNetv2_predict_from_modelfolder -i IN -o OUT -m MODEL -f 0 -device cpu --disable_tta
#   scripts/nnunet.sh --setup      only install
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$root/scripts/setup_tool_venv.sh"

after_install() {
    "$PYTHON" -c "import nnunetv2.inference.predict_from_raw_data" >/dev/null
}

case "${1:-}" in
-h | --help | "") sed -n '2,4s/^# //p' "$0"; exit 0 ;;
esac
setup_tool_venv "${DCD_NNUNET_VENV:-$root/.venv-nnunet}" "$root/tests/integration/nnunet" "3.13"
if [ "$1" = --setup ]; then exit 0; fi
command="$(dirname "$PYTHON")/$1"
shift
exec "$command" "$@"
