"""Make small nnU-Net results folders; runs in the environment of nnU-Net (scripts/nnunet.sh).

python train.py TASK04_HIPPOCAMPUS OUTPUT

Writes, below OUTPUT, nnU-Net's three folders and raw test images:
- Dataset004_Hippocampus: 1 mm, a residual encoder, two trained folds, patches smaller than the images;
- Dataset005_Sagittal: slices of 4 mm along x (``transpose_forward [2, 0, 1]``), one trained fold;
- variants of the first with random weights: plain encoder, regions with an ignore label, CT normalisation.
"""

import json
import os
import sys
from pathlib import Path

DATA, OUTPUT = Path(sys.argv[1]), Path(sys.argv[2])
os.environ |= {f"nnUNet_{name}": str(OUTPUT / name) for name in ("raw", "preprocessed", "results")}
os.environ |= {"nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module  # noqa: E402
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans  # noqa: E402

CASES, TEST_CASES = 20, 3
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
PLANS, CONFIGURATION = "nnUNetResEncUNetMPlans", "3d_fullres"


def write_raw(name: str, step: int) -> None:
    """A raw data set; every ``step``-th sagittal slice, as long as ``step`` of the original ones."""
    folder = OUTPUT / "raw" / name
    names = sorted(path.name.removesuffix(".nii.gz") for path in (DATA / "imagesTr").glob("*.nii.gz"))
    for number, case in enumerate(names[: CASES + TEST_CASES]):
        section = "Tr" if number < CASES else "Ts"
        for kind, suffix in (("images", "_0000"), ("labels", "")):
            image = nib.load(DATA / f"{kind}Tr" / f"{case}.nii.gz").slicer[::step]
            path = folder / f"{kind}{section}" / f"{case}{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype("float32"), image.affine), path)
    about = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": CASES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))
    preprocessed = OUTPUT / "preprocessed" / name
    preprocessed.mkdir(parents=True)
    training = names[:CASES]
    splits = [{"train": sorted(set(training) - set(training[i::2])), "val": training[i::2]} for i in range(2)]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))


def plan(number: int, name: str, patch: list[int], strides: list[list[int]], kernels: list[list[int]]) -> None:
    """nnU-Net's own plan, with a small network."""
    extract_fingerprints([number], num_processes=1)
    plan_experiments([number], "nnUNetPlannerResEncM")
    path = OUTPUT / "preprocessed" / name / f"{PLANS}.json"
    plans = json.loads(path.read_text())
    configuration = plans["configurations"][CONFIGURATION]
    configuration |= {"patch_size": patch, "batch_size": 2}
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": [8, 16, 32],
        "kernel_sizes": kernels,
        "strides": strides,
        "n_blocks_per_stage": [1, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
    }
    path.write_text(json.dumps(plans))
    preprocess([number], PLANS, (CONFIGURATION,), (1,))


def adam(trainer: trainer_module.nnUNetTrainer) -> tuple:
    """Learns something in few steps; nnU-Net 2.5.2's own schedule cannot be constructed with torch 2.13."""
    optimizer = torch.optim.Adam(trainer.network.parameters(), lr=3e-3)
    return optimizer, torch.optim.lr_scheduler.PolynomialLR(optimizer, trainer.num_epochs, 0.9)


def train(name: str, fold: int, epochs: int = 4, iterations: int = 70) -> None:
    """A short training by nnU-Net, without worker processes, that finds both classes; without its final validation."""
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    torch.manual_seed(fold)
    np.random.seed(fold)
    preprocessed = OUTPUT / "preprocessed" / name
    plans, about = (json.loads((preprocessed / f"{file}.json").read_text()) for file in (PLANS, "dataset"))
    trainer = trainer_module.nnUNetTrainer(plans, CONFIGURATION, fold, about, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = epochs, iterations, 2
    trainer.configure_optimizers = lambda: adam(trainer)
    trainer.run_training()


def variant(base: Path, name: str, changes: dict, about: dict, plain: bool = False) -> None:
    """The trained folder's plans with changes, and random weights of nnU-Net's own network."""
    plans = json.loads((base / "plans.json").read_text())
    dataset = json.loads((base / "dataset.json").read_text()) | about
    plans["dataset_name"] = name
    configuration = plans["configurations"][CONFIGURATION]
    configuration |= changes
    architecture = configuration["architecture"]
    if plain:
        architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
        kwargs = architecture["arch_kwargs"]
        kwargs["n_conv_per_stage"] = kwargs.pop("n_blocks_per_stage")
    labels = dataset["labels"]
    regions = any(isinstance(value, list) for value in labels.values())
    heads = len(labels) - ("ignore" in labels) - regions
    torch.manual_seed(7)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        heads,
        deep_supervision=False,
    )
    folder = OUTPUT / "results" / name / base.name
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def main() -> None:
    cube = [3, 3, 3]
    write_raw("Dataset004_Hippocampus", 1)
    write_raw("Dataset005_Sagittal", 4)
    plan(4, "Dataset004_Hippocampus", [24, 32, 24], [[1, 1, 1], [2, 2, 2], [2, 2, 2]], [cube] * 3)
    plan(5, "Dataset005_Sagittal", [8, 32, 32], [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], cube, cube])
    for name, fold in (("Dataset004_Hippocampus", 0), ("Dataset004_Hippocampus", 1), ("Dataset005_Sagittal", 0)):
        train(name, fold)
    base = OUTPUT / "results" / "Dataset004_Hippocampus" / f"nnUNetTrainer__{PLANS}__{CONFIGURATION}"
    regions = {"background": 0, "whole": [1, 2], "Posterior": [2], "ignore": 3}
    variant(base, "Dataset006_Plain", {}, {}, plain=True)
    variant(base, "Dataset007_Regions", {}, {"labels": regions, "regions_class_order": [1, 2]})
    variant(base, "Dataset008_CT", {"normalization_schemes": ["CTNormalization"]}, {"channel_names": {"0": "CT"}})


if __name__ == "__main__":
    main()
