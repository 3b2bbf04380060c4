#!/usr/bin/env bash
# Install MONAI Label into .venv-label (once) and serve bundles on 127.0.0.1. Needs no network after the installation.
#   scripts/monai_label.sh --studies DIR [--port 8811] [--app DIR] [--fresh] [BUNDLE ...]
#   scripts/monai_label.sh --setup      only install
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$root/scripts/setup_tool_venv.sh"

after_install() {
    # monailabel pins packages that contradict each other, and torchvision would bring another torch
    install --no-deps monailabel==0.8.5 torchvision==0.28.0
    # MONAI Label uses two functions of torchvision that draw pictures. The wheels of PyPI cannot register their CUDA
    # operators beside a CPU torch and refuse to be imported; without this file they do not try.
    "$PYTHON" -c "import torchvision" 2>/dev/null ||
        : >"$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchvision/_meta_registrations.py"
    "$PYTHON" -c "import monailabel.interfaces.app, monailabel.transform.post, dcd_ext.handlers"
}

case "${1:-}" in
-h | --help | "") sed -n '2,4s/^# //p' "$0"; exit 0 ;;
esac
# MONAI Label 0.8.5 imports distutils, which Python 3.12 no longer has
setup_tool_venv "${DCD_LABEL_VENV:-$root/.venv-label}" "$root/deploy/label" "3.11"
if [ "$1" = --setup ]; then exit 0; fi
# training on several GPUs calls plain "torchrun"
export PATH="$(dirname "$PYTHON"):$PATH"
exec "$PYTHON" "$root/deploy/label/serve.py" "$@"
