"""The real case in ``examples``: which shipped weights segment it, by which command, and the picture of the result."""

import json
from pathlib import Path

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.io import sha256
from dcd_ext.report.runs import Run
from dcd_ext.report.slices import choose_plane, crop_around, cut_slice, draw_contours
from dcd_ext.report.volumes import case_files, load_case

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "hippocampus"


def shipped_bundle(bundles: Path = ROOT / "bundles") -> Path | None:
    """The smallest hippocampus network whose shipped weights are in place; weights trained over them do not count."""
    for role in ("student_dcd", "student", "teacher"):
        bundle = BundleFolder(bundles / f"hippocampus_segmentation_{role}")
        shipped = bundle.metadata["eval_metrics"].get("weights_sha256")
        if bundle.weights.is_file() and sha256(bundle.weights) == shipped:
            return bundles / bundle.name
    return None


def bundle_command(bundle: Path, run_id: str, *configs: str) -> list[str | Path]:
    """What ``python -m`` runs for a command of a bundle with these config files."""
    files = ",".join(f"'{bundle}/configs/{name}.json'" for name in configs)
    return ["monai.bundle", "run", run_id, "--bundle_root", bundle, "--config_file", f"[{files}]"]


def example_command(bundle: Path, output: Path) -> list[str | Path]:
    """What ``python -m`` runs to segment and score the case."""
    command = bundle_command(bundle, "evaluating", "train", "evaluate")
    return [*command, "--dataset_dir", EXAMPLE, "--section", "test", "--output_dir", output]


def draw_example(output: Path) -> tuple[Path, dict[str, float]]:
    """Write the picture of a scored example; returns its path and the Dice of each class."""
    run = Run("prediction", output, json.loads((output / "metrics.json").read_text("utf-8")), None)
    [(case, entry)] = case_files([run], str(EXAMPLE)).items()
    volumes = load_case(entry, [run], run.metrics["modalities"])
    assert volumes is not None
    plane, index = choose_plane(volumes)
    box, sides = crop_around(volumes, plane, index), [s for axis, s in enumerate(volumes.spacing) if axis != plane]
    image, truth, prediction = (
        cut_slice(voxels, plane, index, box)
        for voxels in (next(iter(volumes.images.values())), volumes.truth, volumes.predictions["prediction"])
    )
    picture = output / "example.png"
    draw_contours(image, prediction, truth, sides).savefig(picture, dpi=200)
    return picture, {name: scores["dice"] for name, scores in run.cases[case].items()}
