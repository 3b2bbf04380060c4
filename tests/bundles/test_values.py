"""Values and places of images and labels: the shipped preprocessing and the data check accept and refuse the same."""

from __future__ import annotations

import gzip
import logging
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from dcd_ext.data.cases import read_case
from dcd_ext.data.check_case import scan_case
from dcd_ext.data.tasks import ISLES22
from dcd_ext.errors import user_error
from tests.conftest import BUNDLES, make_workflow, read_json

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")
SHAPE = (12, 10, 8)
# oblique, so that noise lies in every entry; about 2 mm
OBLIQUE = nib.affines.from_matvec(
    np.linalg.qr(np.array([[3.0, 1, 0.5], [-1, 2, 0.3], [0.2, -0.4, 1]]))[0] * 2, [9, -5, 30]
)


def _shift(millimetres: float, axis: int = 1) -> np.ndarray:
    moved = OBLIQUE.copy()
    moved[axis, 3] += millimetres
    return moved


def _save(path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE) -> str:
    nib.save(nib.Nifti1Image(data, affine, dtype=data.dtype), path)
    return str(path)


def _case(folder: Path) -> dict:
    """Three channels and a label, all different."""
    rng = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.uint8)
    label[3:7, 4:8, 2:6] = 1
    images = [(rng.normal(200, 20, SHAPE) + 50 * label).astype(np.float32) for _ in range(3)]
    files = [_save(folder / f"channel_{i}.nii.gz", image) for i, image in enumerate(images)]
    return {"image": files, "label": _save(folder / "label.nii.gz", label)}


def _change(file: str, change=lambda data: data, affine: np.ndarray = OBLIQUE) -> None:
    _save(Path(file), change(np.asarray(nib.load(file).dataobj)), affine)


@pytest.fixture(scope="module")
def chains() -> dict[str, Compose]:
    """The preprocessing of training and of inference, as shipped."""
    configs = BUNDLES / "isles22_segmentation_student" / "configs"
    parts = {"train": "train::deterministic_transforms", "inference": "preprocessing::transforms"}
    return {n: Compose(ConfigParser(read_json(configs / f"{n}.json")).get_parsed_content(p)) for n, p in parts.items()}


def _refusal(chain: Compose, case: dict) -> str:
    """Why a chain refuses a case, or nothing."""
    try:
        chain(dict(case))
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        assert isinstance(cause, ValueError) and "\n" not in str(cause)
        return str(cause)
    return ""


def _errors(case: dict) -> list[str]:
    findings = scan_case(read_case(case, Path()), ISLES22, frozenset()).findings
    return [f.message() for f in findings if f.severity == "error"]


@pytest.mark.parametrize("place", [-1, -5, -8, 0.5, 0.9])
def test_one_changed_bit_of_a_compressed_file_is_refused_everywhere(place, chains, tmp_path) -> None:
    """The last eight bytes are the checksum and the length, which most readers leave unread."""
    case = _case(tmp_path)
    content = bytearray(Path(case["image"][1]).read_bytes())
    content[place if place < 0 else int(place * len(content))] ^= 1
    Path(case["image"][1]).write_bytes(content)
    assert any(case["image"][1] in error for error in _errors(case))
    for name in ("train", "inference"):
        with pytest.raises(RuntimeError) as error:
            chains[name](dict(case))
        assert f"unreadable file – {case['image'][1]} – " in str(user_error(error.value))


NAN_PLACES = {
    "one voxel": (slice(5, 6), slice(5, 6), slice(3, 4)),  # inside the lesion
    "a border": (slice(0, 2),),
    "half of it": (slice(None), slice(0, 5)),
}


@pytest.mark.parametrize("place", NAN_PLACES)
@pytest.mark.parametrize("workflow", ["train", "inference"])
def test_nan_in_one_channel_is_the_same_as_0_and_said_once(workflow, place, chains, tmp_path, caplog) -> None:
    def put(value: float):
        def change(data: np.ndarray) -> np.ndarray:
            data[NAN_PLACES[place]] = value
            return data

        return change

    case = _case(tmp_path)
    _change(case["image"][1], put(0))
    expected = chains[workflow](dict(case))["image"]
    _change(case["image"][1], put(np.nan))
    with caplog.at_level(logging.WARNING):
        found = [chains[workflow](dict(case))["image"] for _ in range(2)]
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected) and expected.isfinite().all()
    [line] = [record.message for record in caplog.records]
    assert case["image"][1] in line and line.startswith("NaN is read as 0")
    assert not _errors(case)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("workflow", ["train", "inference"])
def test_infinity_is_refused_with_the_name_of_its_file(workflow, value, chains, tmp_path) -> None:
    case = _case(tmp_path)
    _change(case["image"][2], lambda data: np.where(data > 280, np.float32(value), data))
    message = _refusal(chains[workflow], case)
    assert message.startswith(f"infinite intensities – {case['image'][2]} – expected finite")
    assert any(case["image"][2] in error for error in _errors(case))


FITTING = {
    "noise of single precision": OBLIQUE.astype(np.float32) * np.float32(1 + 1e-7),
    "noise in a zero": OBLIQUE + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [2e-8, -3e-8, 0, 0], [0, 0, 0, 0]]),
    "0.05 mm": _shift(0.05),
    "0.099 mm": _shift(-0.099, 2),
}
APART = {
    "0.11 mm": _shift(0.11),
    "a turn": nib.affines.from_matvec(
        OBLIQUE[:3, :3] @ np.array([[1, 0.02, 0], [-0.02, 1, 0], [0, 0, 1]]), OBLIQUE[:3, 3]
    ),
    "a flipped axis": OBLIQUE @ np.diag([1, -1, 1, 1]),
    "swapped axes": OBLIQUE[:, [1, 0, 2, 3]],
    "another patient": _shift(500),
}


@pytest.mark.parametrize("name", [*FITTING, *APART])
@pytest.mark.parametrize("file", ["channel", "label"])
def test_what_the_check_accepts_is_read_and_what_it_refuses_is_not(file, name, chains, tmp_path) -> None:
    case = _case(tmp_path)
    moved = case["label"] if file == "label" else case["image"][1]
    _change(moved, affine={**FITTING, **APART}[name])
    checked, trained = _errors(case), _refusal(chains["train"], case)
    assert bool(checked) is bool(trained) is (name in APART)
    if file == "channel":
        assert bool(_refusal(chains["inference"], case)) is (name in APART)
    if name in APART:
        assert moved in trained and case["image"][0] in trained and "on different grids (" in trained
    else:
        read = chains["train"](dict(case))
        assert read["image"].shape[1:] == read["label"].shape[1:] and torch.equal(
            read["image"].affine, read["label"].affine
        )


LABELS = {
    "just below": lambda d: d - np.float32(9e-4) * (d > 0),
    "just above, as double": lambda d: d + 5e-4 * (d > 0),
    "a shade below zero": lambda d: np.where(d > 0, 1, -1e-4),
    "signed": lambda d: d.astype(np.int32),
    "with a trailing axis": lambda d: d[..., None],
}
NO_LABELS = {
    "a border of one half": lambda d: np.where(np.roll(d, 1) != d, np.float32(0.5), d),
    "0.99": lambda d: d * np.float32(0.99),
    "NaN": lambda d: np.where(d > 0, d, np.float32(np.nan)),
    "negative": lambda d: d.astype(np.int16) * -1,
    "another task's": lambda d: d * np.uint8(2),
    "one more than a byte holds": lambda d: d * np.uint16(257),  # 1 if it were cut to eight bits
    "infinity": lambda d: np.where(d > 0, np.float32(np.inf), np.float32(0)),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_near_whole_numbers_are_these_numbers(name, chains, tmp_path) -> None:
    case = _case(tmp_path)
    expected = chains["train"](dict(case))["label"]
    _change(case["label"], LABELS[name])
    assert not _errors(case)
    assert torch.equal(chains["train"](dict(case))["label"], expected) and expected.unique().tolist() == [0, 1]


@pytest.mark.parametrize("name", NO_LABELS)
def test_other_labels_are_refused_by_name(name, chains, tmp_path) -> None:
    case = _case(tmp_path)
    _change(case["label"], NO_LABELS[name])
    assert any(case["label"] in error for error in _errors(case))
    assert _refusal(chains["train"], case).startswith(
        f"unusable label values – {case['label']} – expected whole numbers"
    )


def test_masks_have_the_shape_and_the_affine_of_their_image(tmp_path) -> None:
    """Singleton axes stay; the position is the sform's, whatever pixdim says, sheared and scaled as it may be."""
    rng = np.random.default_rng(0)
    sheared = OBLIQUE @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
    shapes = [(20, 24, 1), (1, 24, 18), (20, 1, 18), (20, 24, 18, 1), (20, 24, 1, 1), (20, 24, 18)]
    data = tmp_path / "data"
    data.mkdir()
    for number, shape in enumerate(shapes):
        affine = sheared if shape == (20, 24, 18) else OBLIQUE
        image = nib.Nifti1Image(rng.integers(0, 4000, shape).astype(np.int16), affine)
        image.set_sform(affine, code=2)
        content = bytearray(image.to_bytes())
        content[80:92] = struct.pack("<3f", 1, 1, 1)  # pixdim
        content[252:254] = struct.pack("<h", 0)  # no qform
        content[112:116] = struct.pack("<f", 0.25)  # scl_slope
        (data / f"{number}.nii.gz").write_bytes(gzip.compress(bytes(content)))
    network = torch.nn.Conv3d(1, 2, 1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    workflow = make_workflow(
        "hippocampus_segmentation_student",
        "inference",
        kind="infer",
        dataset_dir=str(data),
        output_dir=str(tmp_path / "out"),
        ckpt_path=str(tmp_path / "model.pt"),
        network_def={"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
        patch_size=[16, 16, 16],
    )
    workflow.run()
    for number, shape in enumerate(shapes):
        [mask] = (tmp_path / "out").rglob(f"{number}_seg.nii.gz")
        mask, image = nib.load(mask), nib.load(data / f"{number}.nii.gz")
        assert mask.shape == shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
