#!/usr/bin/env bash
# Everything that needs a GPU, in one command of at most nine minutes: correctness, speed, memory, a benchmark.
#   scripts/gpu_suite.sh OUTPUT          a part that has ended well is skipped the next time
#   scripts/gpu_suite.sh OUTPUT --tiny   the same on the CPU with small sizes, to see that every part runs
# $PYTHON: the interpreter (default .venv/bin/python); $SUITE: what the benchmark runs (default benchmarks/hippocampus.json);
# $TOTAL: seconds, of which the benchmark has what is left (default 540)
# Each part leaves OUTPUT/<part>.json (exit code, seconds, device) and <part>.log; what it measured lies beside them.
set -euo pipefail
OUTPUT="$(mkdir -p "${1:?usage: $0 OUTPUT [--tiny]}" && realpath "$1")"
TINY="${2:-}"
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-.venv/bin/python}"
FAILED=0

part() { # NAME SECONDS COMMAND...
    local name="$1" limit=$(($2 * SLOW)) start=$SECONDS rc=0
    shift 2
    if grep -qs '"exit_code": 0,' "$OUTPUT/$name.json"; then
        echo "$name: done before"
        return
    fi
    timeout --signal INT --kill-after 10 "$limit" "$@" >"$OUTPUT/$name.log" 2>&1 </dev/null || rc=$?
    "$PYTHON" - "$OUTPUT/$name.json" "$rc" $((SECONDS - start)) "$*" <<'PYTHON'
import json, pathlib, sys

import torch

from dcd_ext.versions import environment

path, code, seconds, command = sys.argv[1:]
record = {"exit_code": int(code), "seconds": int(seconds), "command": command, "environment": environment("cuda" if torch.cuda.is_available() else None)}
pathlib.Path(path).write_text(json.dumps(record, indent=4) + "\n", "utf-8")
PYTHON
    echo "$name: exit code $rc after $((SECONDS - start)) s"
    [ "$rc" = 0 ] || FAILED=1
}

if [ "$TINY" = --tiny ]; then
    export DCD_DEVICE=cpu
    SLOW=5 total=9999 device=cpu loss=(--threads 1 --repeats 3 --small --variants dcd mse --only time) step=(--threads 1 --side 32 --repeats 3) widths=(--threads 1 --small --repeats 1 --volume_repeats 1 --factors 4 8)
    runs=(--methods plain dcd --seeds 1) jobs=2
    tests=(-k "losses_and_gradients and dcd")
    dcd() { "$PYTHON" -m dcd_ext "$@" >>"$OUTPUT/tiny.log" 2>&1; }
    dcd phantoms --output "$OUTPUT/source" --layout msd --cases 6 --test_cases 1 --shape 24 30 24
    [ -e "$OUTPUT/prepared" ] || dcd prepare hippocampus --source "$OUTPUT/source" --output "$OUTPUT/prepared" --test_fold 0
    SUITE="$OUTPUT/suite.json"
    "$PYTHON" - "$OUTPUT" <<'PYTHON'
import json, pathlib, sys

suite = json.loads(pathlib.Path("benchmarks/hippocampus.json").read_text("utf-8"))
short = {"max_epochs": 1, "iterations_per_epoch": 2, "val_interval": 1}
suite |= {"dataset_dir": f"{sys.argv[1]}/prepared", "options": suite["options"] | short}
suite |= {"students": {"smallest": suite["students"]["smallest"]}}
pathlib.Path(sys.argv[1], "suite.json").write_text(json.dumps(suite), "utf-8")
PYTHON
else
    SLOW=1 total="${TOTAL:-540}" device=cuda loss=(--batch 2 --repeats 20) step=(--side 128 --batch 2 --repeats 40) widths=(--factors 1 4 --volume 240 240 155)
    runs=() jobs=8
    tests=(-n 8)
fi
mapfile -t files < <(grep -rl --include=test_*.py 'pytest\.mark\.cuda' tests)
part tests 150 "$PYTHON" -m pytest -vv --tb=short -p no:cacheprovider -p no:benchmark -m cuda ${tests[@]+"${tests[@]}"} "${files[@]}"
part loss 60 "$PYTHON" -m scripts.bench_loss --device "$device" "${loss[@]}" --markdown --json "$OUTPUT/bench_loss.json"
part step 60 "$PYTHON" -m scripts.bench_step --device "$device" "${step[@]}" --markdown --json "$OUTPUT/bench_step.json"
part widths 60 "$PYTHON" -m scripts.bench_widths --device "$device" "${widths[@]}" --output "$OUTPUT"
part widths_monai 60 "$PYTHON" -m scripts.bench_widths --device "$device" "${widths[@]}" --monai_inferer --output "$OUTPUT/monai"
# each shape is compiled for half a minute and more: patches only, and not in the small run
[ "$TINY" = --tiny ] ||
    part widths_compiled 120 "$PYTHON" -m scripts.bench_widths --device "$device" "${widths[@]}" --volume_repeats 0 --compile --output "$OUTPUT/compiled"
# the time that is left: what was finished stays, and the next call goes on
part benchmark $((SECONDS < total ? total - SECONDS : 1)) "$PYTHON" -m dcd_ext benchmark "${SUITE:-benchmarks/hippocampus.json}" --output "$OUTPUT/runs" --jobs "$jobs" ${runs[@]+"${runs[@]}"}
exit "$FAILED"
