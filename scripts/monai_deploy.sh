#!/usr/bin/env bash
# Install the MONAI Deploy App SDK into .venv-deploy (once) and segment a DICOM study with a bundle, on the CPU.
#   scripts/monai_deploy.sh --bundle BUNDLE --input DICOM_FOLDER --output FOLDER [--series [CHANNEL=]REGEX ...]
#   scripts/monai_deploy.sh --setup      only install
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$root/scripts/setup_tool_venv.sh"

# holoscan asks for a large stack
ulimit -s 32768 2>/dev/null || true
# and loads the CUDA runtime even where there is no GPU
runtime() { echo "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cuda_runtime/lib"; }

after_install() {
    # the SDK pins the CUDA 13 build of holoscan; the CUDA 12 build runs without a driver, too
    install --no-deps monai-deploy-app-sdk==4.0.0
    LD_LIBRARY_PATH="$(runtime)" "$PYTHON" -c "import monai.deploy.core, highdicom, dcd_ext.inference.geometry"
}

case "${1:-}" in
-h | --help | "") sed -n '2,4s/^# //p' "$0"; exit 0 ;;
esac
setup_tool_venv "${DCD_DEPLOY_VENV:-$root/.venv-deploy}" "$root/deploy/dicom" "3.13"
if [ "$1" = --setup ]; then exit 0; fi
export LD_LIBRARY_PATH="$(runtime)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m deploy.dicom.main "$@"
