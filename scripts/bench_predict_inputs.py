"""What scripts/bench_predict.sh measures: images, bundles with INT8, a standalone folder and nnU-Net's twin.

Usage: python -m scripts.bench_predict_inputs DATA STUDENT WORK

What is there already is kept.
"""

import json
import shutil
import sys
from pathlib import Path

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import show_plainly
from dcd_ext.io import make_folder
from dcd_ext.predict.quantize import export_int8
from dcd_ext.predict.standalone import write_standalone
from scripts import nnunet_twin

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


def staged(root: Path, folder: Path) -> Path:
    """A copy of a bundle below ``folder``, or the one made before; with random weights if it has none."""
    target = folder / root.name
    if target.is_dir():
        return target
    shutil.copytree(root, target, ignore=shutil.ignore_patterns("eval"))
    if not any((target / name).is_file() for name in ("models/model.pt", "pipeline.json")):
        import torch

        torch.manual_seed(0)
        network = BundleFolder(target).parser().get_parsed_content("network_def")
        torch.save(network.state_dict(), make_folder(target / "models") / "model.pt")
    return target


def with_int8(root: Path, data: Path, work: Path) -> Path:
    """A copy of a bundle with an INT8 network; random weights keep no bound."""
    bundle = staged(root, work)
    if not (bundle / "models" / "int8").exists():
        export_int8(bundle, data, _SELECTION_FOLD, 0.005)
    return bundle


def main() -> None:
    data, student, work = map(Path, sys.argv[1:])
    if not (work / "20_labels").exists():
        copy_images(data, work)
    with_int8(_TEACHER, data, work)
    bundle = with_int8(student, data, work)
    if not (work / "standalone").exists():
        write_standalone(bundle, work / "standalone")
    if not (work / "nnunet").exists():
        nnunet_twin.write(bundle, work / "nnunet")


if __name__ == "__main__":
    show_plainly()
    main()
