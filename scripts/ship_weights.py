"""Put the weights of a finished run into a bundle: ``models/model.pt``, their scores, and the bundle's card.

``--half`` stores them in half precision; whatever loads them computes in float32. What is shipped is scored again, by
the bundle's own command, on the selection and the test part of the data the run was trained on.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.runs import Run, run_all
from dcd_ext.commands.common import raise_failures
from dcd_ext.errors import show_plainly
from dcd_ext.io import sha256, write_atomically, write_json
from scripts import build_bundles


def eval_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a bundle's metadata and README say of its weights: Dice per class, mean and standard error over cases."""
    dice = {name: entry["dice"] for name, entry in metrics["summary"].items()}
    return {
        "fold": metrics["fold"],
        "cases": len(metrics["cases"]),
        "dice": {name: round(value["mean"], 4) for name, value in dice.items()},
        "dice_sem": {name: round(value["sem"], 4) for name, value in dice.items()},
    }


def score(bundle: BundleFolder, weights: Path, dataset_dir: Path, fold: int) -> dict[str, Any]:
    """``metrics.json`` of ``selection`` and ``test``, without the path of the data on this machine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        shutil.copyfile(weights, folder / "models" / "model.pt")
        (folder / "models" / "trained").touch()
        files, parts = [str(bundle.root / "configs" / "train.json")], {"validation": "selection", "test": "test"}
        options = {"dataset_dir": dataset_dir.resolve(), "fold": fold}
        run = Run(folder, str(bundle.root), files, options, parts, {"save_predictions": False, "amp": False})
        raise_failures(run_all([run]), 1)
        metrics = {part: json.loads((folder / part / "metrics.json").read_text("utf-8")) for part in parts.values()}
    return {part: {k: v for k, v in content.items() if k != "dataset_dir"} for part, content in metrics.items()}


def trained_with(run: Path) -> dict[str, Any]:
    """Config files and options of a run of ``dcd benchmark``, without what says where and on which device."""
    record = run / "run.json"
    if not record.is_file():
        return {}
    content = json.loads(record.read_text("utf-8"))
    left_out = ("bundle", "dataset_dir", "teacher_ckpt", "num_workers")
    options = {key: value for key, value in content.items() if key not in left_out}
    options["files"] = [file.partition("/configs/")[2] for file in content["files"]]
    return {"trained_with": options}


def _save(state: dict[str, Any], path: Path) -> None:
    """Torch puts the name of a path, here a temporary one, into the archive; an open file has none."""
    with path.open("wb") as file:
        torch.save(state, file)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder with models/model.pt")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle it is a run of")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="data list with a test part")
    parser.add_argument("--fold", type=int, default=1, help="the selection part (default 1)")
    parser.add_argument("--half", action="store_true", help="store half precision")
    args = parser.parse_args(argv)
    bundle = BundleFolder(args.bundle)
    network = bundle.network(args.run / "models" / "model.pt")
    dtype = torch.float16 if args.half else torch.float32
    # the network is converted, not its tensors: several keys share one of them, which torch then saves once
    write_atomically(bundle.weights, lambda name: _save(network.to(dtype).state_dict(), Path(name)))
    metrics = score(bundle, bundle.weights, args.dataset_dir, args.fold)
    write_json(metrics["test"], bundle.root / "models" / "metrics.json")
    shipped = {
        **eval_metrics(metrics["test"]),
        "section": "test",
        "selection_dice": eval_metrics(metrics["selection"])["dice"]["mean"],
        "weights_sha256": sha256(bundle.weights),
        "weights_precision": str(dtype).removeprefix("torch."),
        **trained_with(args.run),
    }
    write_json(shipped, build_bundles.ROOT / "bundle_src" / "results" / f"{bundle.name}.json")
    build_bundles.main([])
    size, dice = bundle.weights.stat().st_size, shipped["dice"]["mean"]
    print(f"{bundle.weights}: {size:,} bytes, mean Dice {dice} on the test part")


if __name__ == "__main__":
    show_plainly()
    main()
