"""Training, validation, evaluation and inference see the same input: one fragment, one result, equal to NumPy's."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from dcd_ext.bundles.sources import load
from tests.conftest import BUNDLES, ROLES, ROOT, TASKS, make_workflow, read_json

BASE = ROOT / "bundle_src" / "base"
CHAIN = ("LoadImaged", "EnsureChannelFirstd", "Orientationd", "CropForegroundd", "NormalizeIntensityd", "Spacingd")
# what the task's data need: whole heads without skull are cropped and normalised inside the brain, small crops are not
CROPPED = {"brats24": True, "isles22": True, "hippocampus": False}


def _config(name: str, file: str):
    return read_json(BUNDLES / name / "configs" / f"{file}.json")


def test_the_sources_take_preprocessing_from_the_fragment_alone() -> None:
    fragment = "%fragments::preprocessing"
    assert load(BASE / "train.json")["train"]["deterministic_transforms"] == fragment
    assert load(BASE / "inference.json")["preprocessing"]["transforms"] == fragment
    assert load(BASE / "evaluate.json")["validate::preprocessing::transforms"] == fragment
    others = [p for p in (ROOT / "bundle_src").rglob("*.json") if p.name != "fragments.json"]
    for path in others:
        assert not [t for t in CHAIN if f'"{t}"' in path.read_text("utf-8")], path


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("task", TASKS)
def test_every_workflow_has_the_fragments_chain(task: str, role: str) -> None:
    name = f"{task}_segmentation_{role}"
    train, inference, evaluate = (_config(name, f) for f in ("train", "inference", "evaluate"))
    chain, reader = inference["preprocessing"]["transforms"], {"_target_": "dcd_inference.volumes.VolumeReader"}
    assert [t["_target_"] for t in chain] == [t for t in CHAIN if t != "CropForegroundd" or CROPPED[task]]
    assert chain[-2]["nonzero"] is CROPPED[task] and chain[-2]["channel_wise"] is True
    assert {t["keys"] for t in chain} == {"image"} and "allow_missing_keys" not in json.dumps(train)
    assert chain[0].pop("reader") == reader
    # training takes the label along, through the geometry alone; evaluation reads it from its file
    both = {"keys": ["image", "label"]}
    with_label = [t | (both if t["_target_"] != "NormalizeIntensityd" else {}) for t in chain]
    with_label = [t | ({"mode": ["bilinear", "nearest"]} if "mode" in t else {}) for t in with_label]
    load, channel_first, *others = with_label
    image, label, first, place, *rest = train["train"]["deterministic_transforms"]
    assert image == {**load, "keys": "image", "reader": reader} and first == channel_first and rest == others
    assert label.pop("reader") == {**reader, "num_classes": "@num_classes"} and label == {**load, "keys": "label"}
    assert place == {"_target_": "dcd_inference.volumes.SamePlaced"}
    assert train["train"]["preprocessing"]["transforms"] == (
        "$@train::deterministic_transforms + @train::random_transforms"
    )
    assert train["validate"]["preprocessing"]["transforms"] == "@train::deterministic_transforms"
    assert train["validate"]["dataset"]["transform"] == "@validate::preprocessing"
    assert evaluate["validate::preprocessing::transforms"] == [{**chain[0], "reader": reader}, *chain[1:]]
    assert inference["dataset"]["transform"] == "@preprocessing"
    assert train["pixdim"] == inference["pixdim"]
    # other overlays leave it alone, and what evaluation inverts is what it applied
    shipped = ("train", "inference", "evaluate")
    for path in [p for p in (BUNDLES / name / "configs").rglob("*.json") if p.stem not in shipped]:
        assert not [key for key in read_json(path) if "preprocessing" in key or key == "pixdim"], path
    assert '"transform": "@validate::preprocessing"' in json.dumps(evaluate)


def _image(name: str, part: str, *configs: str, kind: str = "train", **override) -> torch.Tensor:
    workflow = make_workflow(name, *configs, kind=kind, num_workers=0, **override)
    return workflow.parser.get_parsed_content(part)[0]["image"].as_tensor()


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
@pytest.mark.parametrize("task", TASKS)
def test_one_case_gives_the_same_voxels_in_every_workflow(task: str, prepared) -> None:
    name, folder = f"{task}_segmentation_student", str(prepared(task))
    images = [
        _image(name, "validate::dataset", "train", dataset_dir=folder),
        _image(name, "validate::dataset", "train", "evaluate", dataset_dir=folder),
        _image(name, "dataset", "inference", kind="infer", dataset_dir=folder, datalist=_validation_images(folder)),
    ]
    assert images[0].shape[0] == _config(name, "train")["in_channels"]
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])


def _validation_images(folder: str) -> list:
    return [c["image"] for c in read_json(Path(folder) / "datalist.json")["training"] if c["fold"] == 0]


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_brats_input_equals_numpys_crop_and_z_score(prepared) -> None:
    """At 1 mm there is nothing to resample: flip to RAS, crop to the head, normalise each channel inside it."""
    folder = prepared("brats24")
    files = _validation_images(str(folder))[0]
    stack = np.stack([np.asarray(nib.load(folder / f).dataobj, np.float32)[::-1, ::-1] for f in files])  # LPS to RAS
    inside = np.argwhere((stack > 0).any(0))
    box = tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))
    expected = np.zeros_like(stack[(slice(None), *box)])
    for channel, voxels in enumerate(stack[(slice(None), *box)]):
        head = voxels != 0
        expected[channel][head] = (voxels[head] - voxels[head].mean()) / voxels[head].std()
    found = _image("brats24_segmentation_student", "validate::dataset", "train", dataset_dir=str(folder))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
