#!/usr/bin/env bash
# Measure the tables of docs/predict.md and put them there: about a quarter of an hour on two idle cores.
#   scripts/bench_predict.sh DATA BRATS_CASE [STUDENT]
# DATA: hippocampus prepared by dcd prepare (its first 20 test cases are segmented, fold 1 judges INT8). BRATS_CASE: a
# folder with the four files of a case. STUDENT: a trained hippocampus student (default bundles/hippocampus_segmentation_student).
# Rows that were measured before are kept: remove docs/results/predict_*.json to begin anew. Everything else that it makes
# lies in runs/bench_predict. It needs the packages of requirements-dev.txt (openvino, onnxruntime, nncf), as
# ./runtests.sh --setup installs them into .venv, or DCD_PYTHON as the Python that has them. nnU-Net is left out if it is
# not installed (scripts/nnunet.sh --setup, or DCD_NNUNET_VENV), bfloat16 where the processor has none.
set -euo pipefail
unset OMP_NUM_THREADS # each program decides for itself
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${DCD_PYTHON:-.venv/bin/python}"
data="$1" brats="$2" student="${3:-bundles/hippocampus_segmentation_student}" teacher=bundles/hippocampus_segmentation_teacher
work=runs/bench_predict results=docs/results page=docs/predict.md
nnunet="${DCD_NNUNET_VENV:-.venv-nnunet}/bin/nnUNetv2_predict_from_modelfolder"
bench() { "$python" -m scripts.bench_predict "$@" --output "$results" --page "$page"; }

"$python" -c "import openvino, onnxruntime, nncf" # before minutes of work
mkdir -p "$work"
"$python" -m scripts.bench_predict_inputs "$data" "$student" "$work"
student="$work/$(basename "$student")" teacher="$work/$(basename "$teacher")"
others=() other=()
if [ -x "$nnunet" ]; then
    line="$nnunet -i {input} -o {output} -m $work/nnunet/Dataset999_Twin/nnUNetTrainer__nnUNetPlans__3d_fullres -f 0 -device cpu --disable_tta"
    others=("$(basename "$student"):nnUNetv2_predict=$line")
fi
standalone="$(basename "$student"):standalone folder=$python $work/standalone/predict.py {input} --output {output}"

bench "$student" "$teacher" --images "$work/20" --truth "$work/20_labels" --cases 20 --name hippocampus --repeats 2 --busy \
    --backends openvino openvino-bf16 int8 onnxruntime eager --also ${others[@]+"${others[@]}"} "$standalone"
bench --images "$work/1" --cases 1 --name one_case --also "$standalone" ${others[@]+"${others[@]}"}
bench bundles/brats24_segmentation_student --images "$brats" --cases 1 --name brats --backends openvino openvino-bf16 --busy
bench bundles/brats24_segmentation_teacher --images "$brats" --cases 1 --name brats --backends openvino openvino-bf16 --repeats 1
"$python" -m scripts.bench_window bundles/brats24_segmentation_student bundles/brats24_segmentation_teacher --page "$page"
