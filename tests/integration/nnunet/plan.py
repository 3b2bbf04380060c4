"""nnU-Net's own plans of data sets in the Decathlon's layout; runs in the environment of nnU-Net (scripts/nnunet.sh).

python plan.py OUTPUT DATASET [DATASET ...]

Writes <OUTPUT>/<name>.json for each, the plans of the residual-encoder planner M, and those of the plain planner,
<name>_plain.json.
"""

import json
import os
import shutil
import sys
from pathlib import Path

OUTPUT = Path(sys.argv[1])
os.environ |= {f"nnUNet_{name}": str(OUTPUT / name) for name in ("raw", "preprocessed", "results")}
os.environ |= {"nnUNet_def_n_proc": "1"}

from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprints,
    plan_experiments,
)

# with the name of their plans, and the end of the files' names here
PLANNERS = (("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans", ""), ("ExperimentPlanner", "nnUNetPlans", "_plain"))


def write_raw(source: Path, target: Path) -> None:
    index = json.loads((source / "dataset.json").read_text())
    for pair in index["training"]:
        case = Path(pair["label"]).name
        for part, name in (("image", case.replace(".nii.gz", "_0000.nii.gz")), ("label", case)):
            link = target / f"{part}sTr" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / pair[part]).resolve())
    labels = {name: int(value) for value, name in index["labels"].items()}
    about = {"channel_names": index["modality"], "labels": labels, "numTraining": len(index["training"])}
    (target / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))


def main() -> None:
    for number, source in enumerate(map(Path, sys.argv[2:]), 301):
        name = f"Dataset{number}_{source.name}"
        write_raw(source, OUTPUT / "raw" / name)
        extract_fingerprints([number], num_processes=1)
        for planner, made, suffix in PLANNERS:
            plan_experiments([number], planner)
            shutil.copyfile(OUTPUT / "preprocessed" / name / f"{made}.json", OUTPUT / f"{source.name}{suffix}.json")


if __name__ == "__main__":
    main()
