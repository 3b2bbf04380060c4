"""Seconds per volume, peak memory and Dice of teacher and student, eager and exported, with the same sliding window.

Usage:
    python -m scripts.bench_inference --teacher bundles/hippocampus_segmentation_teacher \\
        --student bundles/hippocampus_segmentation_student_dcd [--dataset_dir prepared/hippocampus] [--output runs]

A bundle without models/model.pt gets random weights in a temporary copy: they cost the same time, but have no Dice.
"""

import argparse
import re
import shlex
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.export import export
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.commands.common import positive
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_json, write_text
from dcd_ext.tables import Table, to_markdown, to_text
from dcd_ext.versions import environment
from scripts.benchmark import page, time_in_turns
from scripts.inference_backends import BACKENDS
from scripts.inference_timing import Contender, load_volumes

_HEADER = ["network", "run by", "s/volume", "min", "max", "lower by", "peak MiB", "start s", "mean Dice"]


def stage(root: Path, folder: Path, role: str, backends: list[str], patch: list[int] | None) -> Path:
    """A copy of the bundle with weights and the exports that the backends need, at another patch if there is one."""
    strides = BundleFolder(root).strides
    if patch and any(side % stride for side, stride in zip(patch, strides, strict=True)):
        raise UserError("patch does not fit the strides", "--patch", f"multiples of {strides}", patch, "choose another")
    target = folder / role
    shutil.copytree(root, target, ignore=shutil.ignore_patterns("*.ts", "*.onnx", "eval"))
    if patch:
        for file in ("inference", "metadata"):
            path = target / "configs" / f"{file}.json"
            key = "patch_size" if file == "inference" else "spatial_shape"
            path.write_text(re.sub(rf'("{key}": )\[[^\]]*\]', rf"\g<1>{patch}", path.read_text("utf-8")), "utf-8")
    bundle = BundleFolder(target)
    if not bundle.weights.is_file():
        torch.manual_seed(0)
        torch.save(bundle.parser().get_parsed_content("network_def").state_dict(), bundle.weights)
    formats = ["torchscript"] if any(b.startswith(("torchscript", "openvino")) for b in backends) else []
    list(export(target, formats + ["onnx"] * ("onnxruntime" in backends)))
    return target


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All contenders in turns; medians and extremes in seconds per volume."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        roots = {"teacher": args.teacher, "student": args.student}
        backends = {"teacher": args.teacher_backends, "student": args.backends}
        staged = {role: stage(root, Path(folder), role, backends[role], args.patch) for role, root in roots.items()}
        volumes = load_volumes(BundleFolder(staged["student"]), args.dataset_dir, args.volumes, args.shape)
        pairs = [(role, b) for role in roots for b in backends[role]]
        contenders = {(r, b): Contender(staged[r], b, volumes, args.threads) for r, b in pairs}
        times = time_in_turns({pair: contender.run for pair, contender in contenders.items()}, args.repeats)
        rows = []
        for (role, backend), contender in contenders.items():
            seconds = [total / len(volumes.images) for total in times[role, backend]]
            row = {"role": role, "backend": backend, "seconds": statistics.median(seconds)}
            row.update(min=min(seconds), max=max(seconds), start_seconds=contender.start_seconds)
            rows.append({**row, **contender.finish()})
    reference = next((r["seconds"] for r in rows if (r["role"], r["backend"]) == ("teacher", "eager")), None)
    for row in rows:
        row["lower_percent"] = None if reference is None else 100 * (1 - row["seconds"] / reference)
    patch = BundleFolder(args.student).metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    return {
        "task": args.student.name.partition("_")[0],
        "teacher": args.teacher.name,
        "student": args.student.name,
        "volumes": len(volumes.images),
        "shape": list(volumes.images[0].shape[2:]),
        "patch": args.patch or patch,
        "trained": all(BundleFolder(root).weights.is_file() for root in roots.values()),
        "repeats": args.repeats,
        "rows": rows,
        "environment": {**environment(), "threads": args.threads},
    }


def inference_table(result: dict[str, Any]) -> Table:
    """One row per network and way of running it."""
    rows = []
    for r in result["rows"]:
        lower = "–" if r["lower_percent"] is None else f"{r['lower_percent']:.1f} %"
        dice = "–" if r["dice"] is None else f"{statistics.mean(r['dice']):.4f}"
        peak = "–" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 2**20:.0f}"
        numbers = [f"{r[key]:.4f}" for key in ("seconds", "min", "max")]
        rows.append([r["role"], r["backend"], *numbers, lower, peak, f"{r['start_seconds']:.1f}", dice])
    shape, patch = (" × ".join(map(str, result[key])) for key in ("shape", "patch"))
    threads = result["environment"]["threads"]
    weights = "trained weights" if result["trained"] else "random weights"
    note = (
        f"{result['volumes']} volume(s), the first of {shape} voxels, windows of {patch}; {weights}; median, minimum "
        f"and maximum of {result['repeats']} passes in turns, {threads} thread(s). «lower by»: "
        "against the eager teacher. «peak»: of a process of its own, above what it takes before the network is built."
    )
    return Table(f"{result['teacher']} and {result['student']}", _HEADER, rows, note)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's bundle")
    parser.add_argument("--student", type=Path, required=True, help="the student's bundle")
    parser.add_argument("--dataset_dir", type=Path, help="prepared data (default: noise)")
    parser.add_argument("--volumes", type=positive, default=4, help="number of volumes in a pass (default 4)")
    parser.add_argument("--shape", type=positive, nargs=3, help="X Y Z of the noise (default: one patch)")
    parser.add_argument("--patch", type=positive, nargs=3, help="X Y Z of the sliding window (default: the bundle's)")
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--teacher_backends", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--repeats", type=positive, default=7, help="passes whose median counts (default 7)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, metavar="DIR", help="write inference_<task>.json and .md there, too")
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser.parse_args(arguments)
    result = measure(args)
    table = inference_table(result)
    print(to_text(table))
    if args.output:
        stem = args.output / f"inference_{result['task']}"
        write_json(result, stem.with_suffix(".json"))
        command = shlex.join(["python", "-m", "scripts.bench_inference", *arguments])
        title = f"Inference on the CPU: {result['task']}"
        write_text(page(title, [to_markdown(table)], command, result["environment"]), stem.with_suffix(".md"))


if __name__ == "__main__":
    show_plainly()
    main()
