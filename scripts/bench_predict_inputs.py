#!/usr/bin/env python3
"""What scripts/bench_predict.sh measures: images, bundles with INT8, a standalone folder and nnU-Net's twin.

Usage: python -m scripts.bench_predict_inputs DATA STUDENT WORK

What is there already is kept.
"""

import json
import shutil
import sys
from pathlib import Path

from dcd_ext.errors import show_plainly
from dcd_ext.io import make_folder
from dcd_ext.predict.quantize import export_int8
from dcd_ext.predict.standalone import write_standalone
from scripts import nnunet_twin
from scripts.bench_predict import staged

_TEACHER = Path("bundles/hippocampus_segmentation_teacher")
_SELECTION_FOLD = 1


def copy_images(data: Path, work: Path) -> None:
    """The first test cases, named as nnU-Net wants them, and their labels."""
    cases = json.loads((data / "datalist.json").read_text("utf-8"))["test"][:20]
    for count in (1, 20):
        images, labels = make_folder(work / f"{count}"), make_folder(work / f"{count}_labels")
        for case in cases[:count]:
            shutil.copy(data / case["image"], images / f"{case['case']}_0000.nii.gz")
            shutil.copy(data / case["label"], labels / f"{case['case']}.nii.gz")


def copy_bundle(root: Path, data: Path, work: Path) -> Path:
    """A bundle with an INT8 network; one without weights gets random ones, which keep no bound."""
    target = work / root.name
    if not target.exists() and staged(root, work) == root:
        shutil.copytree(root, target, ignore=shutil.ignore_patterns("eval"))
    if not (target / "models" / "int8").exists():
        export_int8(target, data, _SELECTION_FOLD, 0.005)
    return target


def main() -> None:
    """Command line."""
    data, student, work = map(Path, sys.argv[1:])
    if not (work / "20_labels").exists():
        copy_images(data, work)
    copy_bundle(_TEACHER, data, work)
    bundle = copy_bundle(student, data, work)
    if not (work / "standalone").exists():
        write_standalone(bundle, work / "standalone")
    if not (work / "nnunet").exists():
        nnunet_twin.write(bundle, work / "nnunet")


if __name__ == "__main__":
    show_plainly()
    main()
