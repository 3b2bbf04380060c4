"""Make the data of ``hippocampus_unlabelled.json``: six labelled cases, and images that only the teacher has labelled.

The teacher's training did not see those images: they are its selection part. What chooses the student's epoch is a fold
of the teacher's training part, of which the student sees nothing.

    dcd prepare hippocampus --source Task04_Hippocampus --output prepared/hippocampus --test_fold 0
    dcd prepare hippocampus --source Task04_Hippocampus --output prepared/hippocampus_few --test_fold 0 \
        --training_share 0.05
    python benchmarks/unlabelled.py prepared
"""

import argparse
import sys
from pathlib import Path

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import show_plainly
from dcd_ext.io import write_json
from dcd_ext.readers import read_json

TEACHER = Path(__file__).resolve().parents[1] / "bundles" / "hippocampus_segmentation_teacher"


def main(prepared: Path) -> None:
    every, few = (
        read_json(prepared / name / "datalist.json", None, "data list", f"see {Path(__file__).name} --help")
        for name in ("hippocampus", "hippocampus_few")
    )
    labelled = [{**case, "fold": 0} for case in few["training"] if case["fold"] != 1]
    names = {case["case"] for case in labelled}
    selection = [{**case, "fold": 1} for case in every["training"] if case["fold"] == 3 and case["case"] not in names]
    images = [case for case in every["training"] if case["fold"] == 1]
    masks = prepared / "hippocampus_unlabelled"
    files = [str((prepared / "hippocampus" / case["image"]).resolve()) for case in images]
    done = dcd(["predict", str(TEACHER), *files, "--output", str(masks), "--backend", "eager"])
    if done:
        sys.exit(done)
    made = [{**case, "fold": 0, "label": str((masks / f"{case['case']}_seg.nii.gz").resolve())} for case in images]
    for name, cases in (("hippocampus_six", labelled), ("hippocampus_unlabelled", labelled + made)):
        training = [*cases, *selection]
        content = {**every, "training": training, "numTraining": len(training)}
        write_json(content, prepared / name / "datalist.json")


if __name__ == "__main__":
    show_plainly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="folder of hippocampus and hippocampus_few")
    main(parser.parse_args().prepared)
