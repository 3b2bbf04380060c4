#!/usr/bin/env bash
# Everything behind docs/results/hippocampus.md: scripts/run_hippocampus.sh Task04_Hippocampus [OUTPUT]
set -euo pipefail
SOURCE="$(realpath "${1:?usage: $0 Task04_Hippocampus [OUTPUT]}")"
cd "$(dirname "$0")/.."
OUTPUT="${2:-runs}"
PYTHON="${PYTHON:-.venv/bin/python}"
"$PYTHON" -m dcd_ext prepare hippocampus --source "$SOURCE" --output "$OUTPUT/prepared/hippocampus"
"$PYTHON" -m dcd_ext check "$OUTPUT/prepared/hippocampus"
for role in teacher student student_dcd; do
    B="bundles/hippocampus_segmentation_$role"
    "$PYTHON" -m monai.bundle run training --bundle_root "$B" --config_file "$B/configs/train.json" \
        --dataset_dir "$OUTPUT/prepared/hippocampus" --output_dir "$OUTPUT/hippocampus/$role"
    "$PYTHON" -m monai.bundle run evaluating --bundle_root "$B" \
        --config_file "['$B/configs/train.json','$B/configs/evaluate.json']" \
        --dataset_dir "$OUTPUT/prepared/hippocampus" --output_dir "$OUTPUT/hippocampus/$role"
done
"$PYTHON" scripts/write_results.py --task hippocampus "$OUTPUT"/hippocampus/{teacher,student,student_dcd}
"$PYTHON" scripts/build_bundles.py
