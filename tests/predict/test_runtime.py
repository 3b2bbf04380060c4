"""Each step of the torch-free runtime does what MONAI's transforms of the shipped configs do, and back."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.inference.volumes import VolumeReader
from dcd_ext.predict import runtime
from dcd_ext.predict.pipelines import FastPipeline
from dcd_ext.predict.runtime import PredictError
from dcd_ext.predict.standalone import pipeline_spec
from tests.conftest import BUNDLES

TURN = Rotation.from_euler("xyz", [8, -14, 21], degrees=True).as_matrix()
SHEAR = np.array([[1, 0.2, 0.05], [0, 1, 0.1], [0, 0, 1]])
SWAP = np.eye(3)[:, [2, 0, 1]]
GRIDS = {
    "isotropic": np.eye(3),
    "flipped": np.diag([-1.0, -1, 1]),
    "anisotropic": np.diag([0.7, -1.6, 2.4]),
    "oblique": TURN @ SWAP @ np.diag([2.1, -0.8, 1.3]),
    "sheared": TURN @ SHEAR @ SWAP @ np.diag([1.9, 0.9, -1.2]),
}


class Smooth(runtime.Engine):
    """A network of ten characters: three classes that depend on the voxel and on the one beside it."""

    def map(self, patches, at_a_time=1):
        for patch in patches:
            image = patch[:, :1]
            yield np.concatenate([0.4 - image, image, 0.7 * np.roll(image, 1, axis=2)], axis=1)


def smooth(patch: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(next(Smooth().map([patch.numpy()])))


def write(path: Path, axes: np.ndarray, shape: tuple[int, ...] = (31, 26, 22), seed: int = 0) -> Path:
    """A head-like blob on a background of 0."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    noise = np.random.default_rng(seed).normal(size=shape)
    data = np.where((grid**2).sum(axis=0) < 0.6, 100 + 30 * noise + 80 * grid[1], 0)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (11, -7, 3)
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    return path


def monai_labels(parser: ConfigParser, files: list[str]) -> tuple[torch.Tensor, np.ndarray]:
    """The network's input and the label map of a shipped inference config, with the network above."""
    item: Any = parser.get_parsed_content("preprocessing")({"image": files if len(files) > 1 else files[0]})
    scores = parser.get_parsed_content("inferer")(item["image"].as_tensor()[None], smooth)[0]
    item["pred"] = MetaTensor(scores, meta=item["image"].meta)
    for transform in parser.get_parsed_content("postprocessing").transforms[:-1]:
        item = transform(item)
    return item["image"].as_tensor(), item["pred"][0].numpy()


@pytest.mark.parametrize("task", ["hippocampus", "isles22", "brats24"])
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_the_shipped_inference(task: str, grid: str, tmp_path: Path) -> None:
    bundle = BundleFolder(BUNDLES / f"{task}_segmentation_student")
    count = {"hippocampus": 1, "isles22": 3, "brats24": 4}[task]
    files = [write(tmp_path / f"{channel}.nii.gz", GRIDS[grid], seed=channel) for channel in range(count)]
    parser = bundle.parser()
    # several windows along two axes, padding along the third
    parser["patch_size"] = [20, 24, 40]
    expected_input, expected = monai_labels(parser, [str(file) for file in files])

    spec = pipeline_spec(bundle)
    volume = runtime.read(files)
    steps = [runtime.STEPS[name](**options) for name, options in spec["steps"]]
    for step in steps:
        volume = step(volume)
    np.testing.assert_allclose(volume.data, expected_input.numpy(), atol=2e-5)
    scores = runtime.SlidingWindow([20, 24, 40], spec["window"]["overlap"])(volume.data, Smooth())
    labels = runtime.Pipeline.postprocess(scores, steps)
    assert labels.shape == expected.shape == (31, 26, 22)
    assert len(np.unique(expected)) == 3
    assert (labels != expected).mean() < 1e-4


def test_blocks_do_not_change_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.nii", GRIDS["sheared"])

    def labels() -> np.ndarray:
        steps = [runtime.Orient("RAS"), runtime.Spacing([1, 1, 1])]
        volume = runtime.read([file])
        for step in steps:
            volume = step(volume)
        return runtime.Pipeline.postprocess(np.concatenate([100 - volume.data, volume.data]), steps)

    whole = labels()
    monkeypatch.setattr(runtime, "_BLOCK", 1)  # one plane at a time
    np.testing.assert_array_equal(labels(), whole)


def test_nan_background_is_its_zero_twin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "zero.nii.gz", GRIDS["oblique"])
    image = nib.load(file)
    data = image.get_fdata(dtype=np.float32)
    nib.save(nib.Nifti1Image(np.where(data == 0, np.nan, data), image.affine), tmp_path / "nan.nii.gz")
    np.testing.assert_array_equal(runtime.read([tmp_path / "nan.nii.gz"]).data, runtime.read([file]).data)
    assert [r.getMessage() for r in caplog.records] == [f"NaN is read as 0 – {tmp_path / 'nan.nii.gz'}"]


def damaged(tmp_path: Path, kind: str) -> tuple[list[Path], str]:
    """Files that cannot be read as one image, and a part of the message."""
    file, other = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    write(file, GRIDS["flipped"])
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:2000])
        return [file], "cannot read"
    if kind == "flipped bit":  # most such files are unzipped without an error, but for their checksum
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 4
        file.write_bytes(damaged)
        return [file], "cannot read"
    if kind == "infinite":
        image = nib.load(file)
        data = image.get_fdata()
        data[3, 3, 3] = -np.inf
        nib.save(nib.Nifti1Image(data, image.affine), file)
        return [file], "infinite intensities"
    if kind == "shifted":
        image = nib.load(write(other, GRIDS["flipped"]))
        nib.save(nib.Nifti1Image(image.get_fdata(), image.affine + np.eye(4)[:, [3, 0, 1, 2]]), other)
        return [file, other], "different grids"
    return write_odd(tmp_path, kind)


def write_odd(tmp_path: Path, kind: str) -> tuple[list[Path], str]:
    """A whole file whose header says what is no image."""
    data, affine, message = np.zeros((4, 4, 4), np.float32), np.eye(4), "not a volume"
    if kind == "five axes":
        data = np.zeros((4, 4, 4, 2, 2), np.float32)
    if kind == "complex":
        data, message = data.astype(np.complex64), "no plain numbers"
    if kind in ("flat", "nowhere"):
        affine[:3, 0], message = 0 if kind == "flat" else np.nan, "axes that span no space"
    image: nib.Nifti1Image = nib.Nifti1Image(data, None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    content = bytearray(image.to_bytes())
    if kind == "negative side":
        content[42:44] = (-4).to_bytes(2, "little", signed=True)
    (tmp_path / "odd.nii").write_bytes(content)
    return [tmp_path / "odd.nii"], message


KINDS = ("cut", "flipped bit", "infinite", "shifted", "five axes", "complex", "flat", "nowhere", "negative side")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    files, message = damaged(tmp_path, kind)
    with pytest.raises(PredictError, match=message) as error:
        runtime.read(files)
    assert str(files[-1]) in str(error.value) and "\n" not in str(error.value)


def test_images_that_monai_reads_need_the_network_s_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = MetaTensor(torch.zeros(1, 4, 5, 6))
    monkeypatch.setattr("monai.transforms.LoadImage", lambda **_: lambda name: image)
    (tmp_path / "a.mha").write_bytes(b"not read here")
    pipeline = FastPipeline.__new__(FastPipeline)
    pipeline.channels = ["T1"]
    assert pipeline.read([tmp_path / "a.mha"]).shape == (4, 5, 6)
    pipeline.channels = ["T1", "T2"]
    with pytest.raises(PredictError, match="wrong number of channels – .*a.mha – expected 2 channels, found 1"):
        pipeline.read([tmp_path / "a.mha"])


def test_writing_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(OSError):
        runtime.Pipeline.write(np.zeros((2, 2, 2), np.uint8), np.eye(4), tmp_path / "a.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize(("slope", "offset"), [(1, 5), (0.5, 0), (0.25, -3)])
def test_stored_integers_are_scaled_as_the_header_says(slope: float, offset: float, tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, offset)
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(runtime.read([tmp_path / "a.nii"]).data[0], stored * slope + offset)


def test_a_message_names_the_case() -> None:
    case = runtime.Case("p/a", (Path("a.nii"),))
    texts = ("wrong number of channels – expected 1, found 2", "cannot read – a.nii", "no file – p/a")
    assert [runtime.in_one_line(PredictError(text), case) for text in texts] == [f"{texts[0]} – p/a", *texts[1:]]


@pytest.mark.parametrize("read", [lambda f: runtime.read([f]).data, lambda f: VolumeReader().get_data([str(f)])[0]])
def test_a_constant_image_is_told(read: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a failed export leaves it; the hippocampus student finds a hippocampus in it."""
    for name, last in (("black", 0), ("image", 1)):
        data = np.zeros((4, 5, 6), np.float32)
        data[-1, -1, -1] = last
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii")
        assert read(tmp_path / f"{name}.nii").sum() == last
    assert "constant image" in caplog.text and "black.nii – all voxels are 0" in caplog.text
    assert "image.nii" not in caplog.text
