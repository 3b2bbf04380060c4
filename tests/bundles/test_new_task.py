"""``dcd new-task``: data sets in four forms give task files that can be built, planned by nnU-Net's rules."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dcd_ext.bundles.planner import plan, target_spacing, topology
from dcd_ext.commands.main import main as dcd
from tests.conftest import read_json
from tests.nnunet.conftest import plans


def save(path: Path, shape: tuple[int, ...], spacing: tuple[float, ...] = (1, 1, 1), value: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.full(shape, value, np.int16), np.diag([*spacing, 1.0])), path)


def nnunet_raw(root: Path, cases: int = 2, **changes: Any) -> Path:
    """Two channels, coarse along z."""
    for case in range(cases):
        for channel in range(2):
            save(root / "imagesTr" / f"p{case}_{channel:04d}.nii.gz", (48, 40, 8), (1, 1, 6))
        save(root / "labelsTr" / f"p{case}.nii.gz", (48, 40, 8), (1, 1, 6))
    index = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "left lobe": 1, "right lobe": 2}}
    (root / "dataset.json").write_text(json.dumps({**index, "file_ending": ".nii.gz", **changes}), "utf-8")
    return root


def decathlon(root: Path, cases: int = 2, **changes: Any) -> Path:
    pairs = []
    for case in range(cases):
        pairs.append({"image": f"./imagesTr/c{case}.nii.gz", "label": f"./labelsTr/c{case}.nii.gz"})
        for path in pairs[-1].values():
            save(root / path, (20, 24, 20))
    index = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "part"}, "training": pairs}
    (root / "dataset.json").write_text(json.dumps({**index, **changes}), "utf-8")
    return root


def make(dataset: Path, output: Path, *options: str) -> dict[str, Any]:
    """The file, after its bundles have been built."""
    assert dcd(["new-task", str(dataset), "--output", str(output), *options]) == 0
    assert dcd(["build", str(output), "--output", str(output.parent / "bundles")]) == 0
    task: dict[str, Any] = read_json(output)
    assert set(task["comments"]) >= {"pixdim", "patch_size", "strides", "features", "n_blocks", "batch_size"}
    return task


# patch and stages as nnU-Net 2's residual encoder planner gives them for 8 GiB: hippocampus; and by hand from the rules
@pytest.mark.parametrize(
    ("name", "patch", "stages"),
    [
        ("Task04_Hippocampus", [40, 56, 40], 4),
        ("LPBA40_2mm", [80, 96, 64], 5),
        ("TCGA_LGG_FLAIR", [128, 128, 32], 6),
    ],
)
def test_real_sets_build(name: str, patch: list[int], stages: int, data_dir: Path, tmp_path: Path) -> None:
    task = make(data_dir / name, tmp_path / "mine.json")
    assert task["common"]["patch_size"] == patch and len(task["common"]["strides"]) == stages
    names = list(read_json(data_dir / name / "dataset.json")["labels"].values())
    assert task["metadata"]["outputs"] == names and task["common"]["num_classes"] == len(names)
    assert task["fragments"]["normalize_nonzero"] == (name == "LPBA40_2mm")  # skull-stripped


def test_a_raw_set_of_nnunet_is_planned_and_prepared(tmp_path: Path) -> None:
    source = nnunet_raw(tmp_path / "Dataset007_Lobes")
    task = make(source, tmp_path / "lobes.json")
    common, fragments = task["common"], task["fragments"]
    assert common["pixdim"] == [1.0, 1.0, 6.0] and common["in_channels"] == 2
    # the first stages neither halve nor convolve across slices
    assert common["strides"][1] == [2, 2, 1] and fragments["network_def"]["kernel_sizes"][0] == [3, 3, 1]
    assert fragments["mirror_axes"] == [1, 2] and fragments["rotate_range"][:2] == [0, 0]
    train = read_json(tmp_path / "bundles" / "lobes_segmentation_teacher" / "configs" / "train.json")
    assert train["network_def"]["kernel_sizes"] == fragments["network_def"]["kernel_sizes"]
    assert train["batch_size"] == task["train"]["batch_size"]
    command = task["readme"]["prepare"].split()
    command[command.index("--source") + 1], command[-1] = str(source), str(tmp_path / "prepared")
    assert dcd(command[1:]) == 0
    # the prepared list says the same
    again = make(tmp_path / "prepared", tmp_path / "again.json")
    assert again["common"] == common and len(read_json(tmp_path / "prepared" / "datalist.json")["training"]) == 2


def test_a_plans_file_is_taken_over(tmp_path: Path, capsys: Any) -> None:
    """Axes: nnU-Net's z, y, x, here with y first; the trained configuration inherits from another."""
    changes = {"transpose_forward": [1, 0, 2], "spacing": [2.0, 3.0, 1.0], "patch_size": [20, 8, 48], "batch_size": 4}
    content = plans(channels=2, **changes)
    content["configurations"]["base"]["architecture"]["arch_kwargs"] |= {
        "features_per_stage": [16, 32],
        "n_blocks_per_stage": [1, 2],
        "strides": [[1, 1, 1], [2, 1, 2]],
        "kernel_sizes": [[3, 1, 3], [3, 3, 3]],
    }
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(content), "utf-8")
    source = nnunet_raw(tmp_path / "Dataset007_Lobes")
    task = make(source, tmp_path / "lobes.json", "--plans", str(file))
    common = task["common"]
    assert common["pixdim"] == [1.0, 2.0, 3.0] and common["patch_size"] == [48, 20, 8]
    assert common["strides"] == [[1, 1, 1], [2, 2, 1]] and common["features"] == [16, 32]
    assert task["fragments"]["network_def"]["kernel_sizes"][0] == [3, 3, 1] and task["train"]["batch_size"] == 4
    architecture = content["configurations"]["base"]["architecture"]
    architecture["network_class_name"] = architecture["network_class_name"].replace("ResidualEncoder", "PlainConv")
    architecture["arch_kwargs"]["n_conv_per_stage"] = architecture["arch_kwargs"].pop("n_blocks_per_stage")
    file.write_text(json.dumps(content), "utf-8")
    task = make(source, tmp_path / "plain.json", "--plans", str(file))
    assert task["common"]["n_blocks"] == [1, 3] and "of a plain one" in task["comments"]["n_blocks"]
    del architecture["arch_kwargs"]["strides"]
    file.write_text(json.dumps(content), "utf-8")
    capsys.readouterr()
    command = ["new-task", str(source), "--output", str(tmp_path / "other.json"), "--plans", str(file)]
    assert dcd(command) == 1 and not (tmp_path / "other.json").exists()
    assert "incomplete plans" in capsys.readouterr().err


def test_the_rules() -> None:
    # an anisotropic set: the 10th percentile along the coarse axis, not below the other axes
    spacings, shapes = np.array([[1, 1, 4.0], [1, 1, 5], [1, 1, 8]]), np.array([[200, 200, 20]] * 3)
    assert target_spacing(spacings, shapes)[0] == pytest.approx([1, 1, 4.2])
    # many slices: the median
    assert target_spacing(spacings, shapes * [1, 1, 6])[0] == pytest.approx([1, 1, 5])
    # the prostate of the Decathlon, as in nnU-Net's published plans: seven stages
    strides, kernels, patch = topology([0.625, 0.625, 3.6], [256, 320, 20])
    assert [s[2] for s in strides] == [1, 1, 1, 2, 2, 1, 1] and patch == [256, 320, 20]
    assert [k[2] for k in kernels] == [1, 1, 3, 3, 3, 3, 3]
    # less memory, a smaller patch with sides that still fit
    large, small = (plan([[1, 1, 1]] * 9, [[200, 220, 180]] * 9, 1, 2, memory) for memory in (8, 4))
    assert np.prod(small.patch_size) < np.prod(large.patch_size)
    assert all(side % f == 0 for side, f in zip(small.patch_size, np.prod(small.strides, axis=0), strict=True))


@pytest.mark.parametrize(
    ("layout", "cases", "changes", "text"),
    [
        (decathlon, 2, {"labels": {"0": "background"}}, "missing names of labels"),
        (decathlon, 2, {"labels": {"0": "background", "2": "part"}}, "missing names of labels"),
        (nnunet_raw, 2, {"labels": {}}, "missing names of labels"),
        (decathlon, 1, {}, "too few labelled cases"),
        (nnunet_raw, 1, {}, "too few labelled cases"),
        (nnunet_raw, 2, {"file_ending": ".nrrd"}, "not NIfTI"),
        (nnunet_raw, 2, {"labels": {"background": 0, "whole": [1, 2]}}, "labels that overlap or are ignored"),
        (nnunet_raw, 2, {"channel_names": {"0": "T2", "1": "ADC", "2": "DWI"}}, "case p0 is incomplete"),
        (decathlon, 2, {"modality": {"0": "T1", "1": "T2"}}, "case c0: other channels"),
    ],
)
def test_an_unusable_set_is_one_line(
    layout: Any, cases: int, changes: Any, text: str, tmp_path: Path, capsys: Any
) -> None:
    source = layout(tmp_path / "set", cases, **changes)
    assert dcd(["new-task", str(source), "--output", str(tmp_path / "t.json")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {text}") and not (tmp_path / "t.json").exists()


def test_an_entry_without_an_image_is_one_line(tmp_path: Path, capsys: Any) -> None:
    content = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "part"}, "training": [{"case": "c0"}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content), "utf-8")
    assert dcd(["new-task", str(tmp_path), "--output", str(tmp_path / "t.json")]) == 1
    message = "datalist.json, training[0] – expected image, found no image"
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_broken_files_and_headers_are_one_line(tmp_path: Path, capsys: Any) -> None:
    source = decathlon(tmp_path / "set", 3)
    image = source / "imagesTr" / "c1.nii.gz"
    whole = image.read_bytes()
    flat = bytearray(gzip.decompress(whole))
    flat[312:328] = bytes(16)  # the affine's third row: all voxels in one plane
    broken = {whole[: len(whole) // 2]: "unreadable file", b"no image": "unreadable file"}
    for content, text in {**broken, gzip.compress(bytes(flat)): "case c1: unusable affine"}.items():
        image.write_bytes(content)
        assert dcd(["new-task", str(source), "--output", str(tmp_path / "t.json")]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"error: {text}" in line and "c1.nii.gz" in line


def test_images_that_are_no_nifti_and_an_edited_file(tmp_path: Path, capsys: Any) -> None:
    source = decathlon(tmp_path / "set")
    index = read_json(source / "dataset.json")
    for pair in index["training"]:
        for path in pair.values():
            (source / path).rename(source / path.replace(".nii.gz", ".mha"))
    text = json.dumps(index).replace(".nii.gz", ".mha")
    (source / "dataset.json").write_text(text, "utf-8")
    (tmp_path / "edited.json").write_text("{}", "utf-8")
    for output, message in (
        ("t.json", "not NIfTI"),
        ("edited.json", "the file exists"),
        ("my t.json", "unusable name"),
    ):
        assert dcd(["new-task", str(source), "--output", str(tmp_path / output)]) == 1
        assert capsys.readouterr().err.startswith(f"error: {message}")
    assert (tmp_path / "edited.json").read_text("utf-8") == "{}"
