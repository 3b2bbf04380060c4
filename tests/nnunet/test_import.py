"""Import and export without nnunetv2: what comes out, and what is refused in one line with nothing written."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.verify import verify
from dcd_ext.commands.main import main as dcd
from dcd_ext.io import write_json
from dcd_ext.nnunet.plans import read_configuration
from dcd_ext.nnunet.results import read_results
from dcd_ext.nnunet.task import build_task
from tests.conftest import read_json
from tests.nnunet.conftest import checkpoint, network, plans, write_results

NAME = "Dataset041_Toy"


def run_import(results: Path, output: Path, *options: str) -> int:
    return dcd(["import-nnunet", "--results", str(results), "--output", str(output), *options])


def teacher(output: Path) -> BundleFolder:
    return BundleFolder(output / f"{NAME}_segmentation_teacher")


@pytest.mark.parametrize("plain", [False, True])
def test_the_imported_network_answers_as_nnu_net_s(tmp_path, plain):
    model = write_results(tmp_path / "results", plain=plain)
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    original = network(plans(plain=plain))
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(teacher(tmp_path / "bundles").network()(image), original(image))
    assert "nnunetv2" not in sys.modules
    inference = read_json(tmp_path / "bundles" / f"{NAME}_segmentation_teacher" / "configs" / "inference.json")
    assert inference["patch_size"] == [8, 16, 16] and inference["pixdim"] == [4.0, 1.0, 1.0]
    assert "dcd_ext" not in json.dumps(inference) and model.is_dir()


def test_all_bundles_are_what_their_task_file_gives(tmp_path):
    write_results(tmp_path / "results")
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    for role in ("teacher", "student", "student_dcd"):
        metadata = read_json(tmp_path / "bundles" / f"{NAME}_segmentation_{role}" / "configs" / "metadata.json")
        assert "scipy" in metadata["required_packages_version"]
        found = verify(tmp_path / "bundles" / f"{NAME}_segmentation_{role}", tmp_path / "bundles" / f"{NAME}.json")
        assert {result.check: result.detail for result in found if result.status == "FAILED"} == {}


def test_folds_become_an_ensemble_of_which_the_student_sees_features_of_one(tmp_path, monkeypatch):
    # as in a new process: the code inside bundles has not been imported yet
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "nnunet_scripts").is_dir()])
    for module in [name for name in sys.modules if name.startswith("nnunet_scripts")]:
        monkeypatch.delitem(sys.modules, module)
    write_results(tmp_path / "results", folds=("0", "2"))
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    members = [network(plans(), seed=seed) for seed in (0, 1)]
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mean = torch.stack([member(image).softmax(1) for member in members]).mean(0)
        torch.testing.assert_close(teacher(tmp_path / "bundles").network()(image).softmax(1), mean)
    root = tmp_path / "bundles" / f"{NAME}_segmentation_student_dcd"
    parser = ConfigParser(read_json(root / "configs" / "train.json"))
    parser.update({"bundle_root": str(root), "teacher_member": 1, "device": "cpu"})
    assert parser.get_parsed_content("teacher_taps")[0] == "members.1.encoder.stages.0"
    loaded = parser.get_parsed_content("teacher")
    with torch.no_grad():
        torch.testing.assert_close(loaded(image).softmax(1), mean)


def test_without_folds_every_numbered_one_is_taken_or_that_of_all_cases(tmp_path, capfd):
    model = write_results(tmp_path / "results", folds=("all",))
    assert run_import(model, tmp_path / "bundles") == 0
    about = read_json(tmp_path / "bundles" / f"{NAME}_segmentation_student" / "docs" / "nnunet" / "import.json")
    assert about["folds"] == ["all"]
    assert run_import(model, tmp_path / "again", "--folds", "0") == 1
    assert re.fullmatch(r"error: weights not found .* no such file .*\n", capfd.readouterr().err)


def test_checkpoints_written_with_numpy_1_can_be_read(tmp_path):
    model = write_results(tmp_path / "results")
    path = model / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as archive:
        entries = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in entries.items():
            old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            assert info.filename.endswith("data.pkl") == (old != content)
            archive.writestr(info, old)
    assert run_import(model, tmp_path / "bundles") == 0


class Foreign:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("this ran",)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def _overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    path.write_bytes(bytes(content))


def _foreign(path: Path) -> None:
    torch.save({**checkpoint(network(plans()).state_dict()), "extra": Foreign()}, path)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"network_weights": {}}))


def _bare_weights(path: Path) -> None:
    torch.save(network(plans()).state_dict(), path)


def _two_channels(path: Path) -> None:
    torch.save(checkpoint(network(plans(), channels=2).state_dict()), path)


def _four_heads(path: Path) -> None:
    torch.save(checkpoint(network(plans(), heads=4).state_dict()), path)


def _a_key_less(path: Path) -> None:
    state = network(plans()).state_dict()
    torch.save(checkpoint(dict(list(state.items())[1:])), path)


def _text_for_a_tensor(path: Path) -> None:
    state = network(plans()).state_dict()
    torch.save(checkpoint({**state, next(iter(state)): "text"}), path)


def _not_finite(path: Path) -> None:
    state = network(plans()).state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    torch.save(checkpoint(state), path)


def _of_2d(path: Path) -> None:
    content = checkpoint(network(plans()).state_dict())
    torch.save({**content, "init_args": {"configuration": "2d"}}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "weights cannot be read"),
        (_overwrite, "weights cannot be read"),
        (_foreign, "weights cannot be read .* expected tensors only"),
        (_pickle, "weights cannot be read"),
        (_bare_weights, "not a checkpoint of nnU-Net"),
        (_two_channels, r"weights do not fit .* expected shape \(8, 1, 1, 3, 3\), found shape \(8, 2, 1, 3, 3\)"),
        (_four_heads, "weights do not fit .* found shape"),
        (_a_key_less, "weights do not fit"),
        (_of_2d, "folds of two configurations .* expected 3d_fullres, found 2d"),
        (Path.unlink, "weights not found|no trained fold"),
        (lambda path: path.write_bytes(b""), r"weights cannot be read .* found half of a file.* \(0 bytes\)"),
        (_not_finite, "weights are not finite .* found 1 of 72 values NaN"),
        (_text_for_a_tensor, "weights do not fit .* found a value of type str"),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_nothing_is_written(tmp_path, capfd, damage, message):
    model = write_results(tmp_path / "results", folds=("0", "1"))
    damage(model / "fold_1" / "checkpoint_final.pth")
    assert run_import(model, tmp_path / "bundles", "--folds", "0", "1") == 1
    output = capfd.readouterr()
    assert len(output.err.splitlines()) == 1 and "this ran" not in output.out
    assert re.search(message, output.err), output.err
    assert not (tmp_path / "bundles").exists() or not list((tmp_path / "bundles").iterdir())


@pytest.mark.parametrize(
    ("changes", "about", "message"),
    [
        ({"previous_stage": "3d_lowres"}, {}, "cannot import this configuration"),
        ({"next_stage": "3d_cascade_fullres"}, {}, "cannot import this configuration"),
        ({"patch_size": [16, 16]}, {}, "cannot import this configuration"),
        ({"architecture": None}, {}, "plans of an old nnU-Net"),
        ({"architecture": {"network_class_name": "os.system"}}, {}, "cannot import this network"),
        ({"normalization_schemes": ["MyNormalization"]}, {}, "cannot import this normalisation"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, {}, "cannot import this resampling"),
        ({"image_reader_writer": "Tiff3DIO"}, {}, "cannot import this image reader"),
        ({"transpose_forward": [0, 0, 1]}, {}, "incomplete plans"),
        ({"spacing": None}, {}, "incomplete plans"),
        ({"dataset_name": "../up"}, {}, "unusable name of the data set"),
        ({"plans_name": "../../up"}, {}, "unusable name of the plans"),
        ({"patch_size": [0, 16, 16]}, {}, "incomplete plans"),
        ({"spacing": [0, 1.0, 1.0]}, {}, r"unusable plans – .*plans.json \(common.pixdim\[0\] of the task file\)"),
        ({"resampling_fn_data_kwargs": {"order": 9}}, {}, "cannot import this order of resampling"),
        ({}, {"labels": {"background": 0, "core": 1.5, "rim": 2}}, "unusable labels"),
        ({"patch_size": [8, 16, 15]}, {}, "the patch does not fit the strides"),
        ({"kernels": [[1, 3, 3], [2, 2, 2], [3, 3, 3]]}, {}, "the network cannot be built"),
        ({}, {"labels": {"background": 0, "core": 1, "rim": 3}}, "unusable labels"),
        ({}, {"labels": {"background": 0, "whole": [1, 2], "rim": [2]}}, "unusable regions"),
        ({}, {"labels": {"background": 0, "$print('this ran')": 1, "rim": 2}}, "unusable name"),
        ({}, {"channel_names": {"0": "T1", "1": "T2"}}, "plans of another data set"),
    ],
)
def test_what_cannot_be_imported_is_one_line(tmp_path, capfd, changes, about, message):
    kernels = changes.pop("kernels", None)
    content = plans(**changes)
    if kernels:
        content["configurations"]["base"]["architecture"]["arch_kwargs"]["kernel_sizes"] = kernels[:2]
    model = write_results(tmp_path / "results", about=about)
    write_json(content, model / "plans.json")
    assert run_import(model, tmp_path / "bundles") == 1
    output = capfd.readouterr()
    assert re.match(f"error: {message}", output.err) and len(output.err.splitlines()) == 1, output.err
    assert ".import-" not in output.err  # a folder that is gone
    assert not (tmp_path / "bundles").exists() or not list((tmp_path / "bundles").iterdir())


def test_an_expression_among_the_network_s_arguments_is_refused(tmp_path, capfd):
    for key, value in (("nonlin", "os.system"), ("nonlin", "torch.nn.functional.print or open"), ("dropout_op", "$1")):
        content = plans()
        content["configurations"]["base"]["architecture"]["arch_kwargs"][key] = value
        model = write_results(tmp_path / f"{key}{len(value)}")
        write_json(content, model / "plans.json")
        assert run_import(model, tmp_path / "bundles") == 1
        assert "unsafe entry in the plans" in capfd.readouterr().err
    content = plans()
    content["configurations"]["base"]["architecture"]["arch_kwargs"]["nonlin_kwargs"] = {"inplace": "$print(1)"}
    write_json(content, model / "plans.json")
    assert run_import(model, tmp_path / "bundles") == 1
    assert "unsafe entry in the plans" in capfd.readouterr().err


def test_a_second_import_leaves_the_first_as_it_is(tmp_path, capfd):
    model = write_results(tmp_path / "results")
    assert run_import(model, tmp_path / "bundles") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bundles").rglob("*")}
    assert run_import(model, tmp_path / "bundles") == 1
    assert "exists already" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bundles").rglob("*")} == before


def test_nnu_net_s_splits_become_folds(tmp_path, capfd):
    model = write_results(tmp_path / "results", channels=2)
    raw = tmp_path / "raw" / NAME
    for section, names in (("Tr", ("a_1", "b", "c")), ("Ts", ("d",))):
        for name in names:
            for channel in range(2):
                path = raw / f"images{section}" / f"{name}_{channel:04d}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    (raw / "labelsTr").mkdir()
    for name in ("a_1", "b", "c"):
        (raw / "labelsTr" / f"{name}.nii.gz").touch()
    splits = tmp_path / "splits_final.json"
    write_json([{"train": ["b"], "val": ["a_1", "c"]}, {"train": ["a_1", "c"], "val": ["b"]}], splits)
    options = ["--raw", str(raw.parent), "--splits", str(splits)]
    assert run_import(model, tmp_path / "bundles", *options) == 0
    found = read_json(tmp_path / "bundles" / "datalist.json")
    assert {entry["case"]: entry["fold"] for entry in found["training"]} == {"a_1": 0, "b": 1, "c": 0}
    assert [Path(name).name for name in found["test"][0]["image"]] == ["d_0000.nii.gz", "d_0001.nii.gz"]
    assert found["folds"] == 2 and found["labels"] == {"0": "background", "1": "core", "2": "rim"}
    write_json([{"train": [], "val": ["a_1"]}], splits)
    assert run_import(model, tmp_path / "again", *options) == 1
    assert "case without a fold" in capfd.readouterr().err
    (raw / "imagesTr" / "b_0001.nii.gz").unlink()
    assert run_import(model, tmp_path / "again", *options) == 1
    assert "is incomplete" in capfd.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_round_trip_keeps_weights_plans_and_data_set(tmp_path):
    model = write_results(tmp_path / "results", folds=("1", "3"))
    assert run_import(model, tmp_path / "bundles") == 0
    root = tmp_path / "bundles" / f"{NAME}_segmentation_teacher"
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 0
    [made] = (tmp_path / "out" / NAME).iterdir()
    assert made.name == "nnUNetTrainer__nnUNetResEncUNetMPlans_teacher__3d_fullres"
    expected = read_json(model / "plans.json") | {"plans_name": "nnUNetResEncUNetMPlans_teacher"}
    assert read_json(made / "plans.json") == expected
    assert read_json(made / "dataset.json") == read_json(model / "dataset.json")
    for fold in ("fold_1", "fold_3"):
        path = made / fold / "checkpoint_final.pth"
        found = torch.load(path, weights_only=True)
        with torch.serialization.safe_globals([np.dtype, np._core.multiarray.scalar, np.dtypes.Float32DType]):
            original = torch.load(model / fold / "checkpoint_final.pth", weights_only=True)
        assert found["network_weights"].keys() == original["network_weights"].keys()
        assert all(torch.equal(v, original["network_weights"][k]) for k, v in found["network_weights"].items())
        assert found["inference_allowed_mirroring_axes"] == (0, 1, 2)
    # and what was exported can be imported
    assert run_import(made, tmp_path / "back") == 0


def test_a_student_is_exported_with_its_own_widths(tmp_path, capfd):
    write_results(tmp_path / "results")
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    root = tmp_path / "bundles" / f"{NAME}_segmentation_student"
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 1
    assert "weights not found" in capfd.readouterr().err
    student = BundleFolder(root)
    network_ = student.parser().get_parsed_content("network_def").eval()
    torch.save(network_.state_dict(), root / "models" / "model.pt")
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 0
    [made] = (tmp_path / "out" / NAME).iterdir()
    [configuration] = read_json(made / "plans.json")["configurations"].values()
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 8, 8]
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 1
    assert "exists already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("plans", {"plans_name": "../../../up"}, "unusable name of the plans"),
        ("plans", {"dataset_name": "../../up"}, "unusable name of the data set"),
        ("plans", {"configurations": None}, "no such configuration"),
        ("plans", {"transpose_forward": [0, 0, 1]}, "incomplete plans – .*/docs/nnunet/plans.json – "),
        ("import", {"folds": ["../../../up"]}, "incomplete plans .* folds"),
        ("import", {"folds": 3}, "incomplete plans"),
        ("import", {"mirror_axes": "abc"}, "incomplete plans"),
        ("dataset", {"channel_names": None}, "unusable channels"),
        ("dataset", {"channel_names": {"0": "T1", "1": "T2"}}, "weights do not fit"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_stays_in_its_folder(tmp_path, capfd, file, changes, message):
    write_results(tmp_path / "results")
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    path = tmp_path / "bundles" / f"{NAME}_segmentation_teacher" / "docs" / "nnunet" / f"{file}.json"
    write_json(read_json(path) | changes, path)
    before, _ = sorted(tmp_path.rglob("*")), capfd.readouterr()
    assert dcd(["export-nnunet", str(path.parents[2]), "--output", str(tmp_path / "a" / "b" / "out")]) == 1
    error = capfd.readouterr().err
    assert re.match(f"error: {message}", error) and len(error.splitlines()) == 1, error
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_student_by_dcd_distil_is_exported_too(tmp_path):
    write_results(tmp_path / "results")
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    root = tmp_path / "small"
    assert dcd(["distil", str(tmp_path / "bundles" / f"{NAME}_segmentation_teacher"), "--output", str(root)]) == 0
    student = BundleFolder(root).parser().get_parsed_content("network_def")
    torch.save(student.state_dict(), root / "models" / "model.pt")
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 0
    [made] = (tmp_path / "out" / NAME).iterdir()
    assert made.name == "nnUNetTrainer__nnUNetResEncUNetMPlans_distilled__3d_fullres"
    [configuration] = read_json(made / "plans.json")["configurations"].values()
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 4, 4]


def test_other_bundles_and_changed_networks_are_refused(tmp_path, capfd):
    write_results(tmp_path / "results")
    assert run_import(tmp_path / "results" / NAME, tmp_path / "bundles") == 0
    root = tmp_path / "bundles" / f"{NAME}_segmentation_teacher"
    config = read_json(root / "configs" / "inference.json")
    config["network_def"]["kernel_sizes"] = [[3, 3, 3]] * 3
    write_json(config, root / "configs" / "inference.json")
    network_ = BundleFolder(root).parser().get_parsed_content("network_def")
    torch.save(network_.state_dict(), root / "models" / "model.pt")
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 1
    assert "weights do not fit" in capfd.readouterr().err
    (root / "docs" / "nnunet" / "plans.json").unlink()
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 1
    assert "plans.json" in capfd.readouterr().err and not (tmp_path / "out").exists()
    shutil.rmtree(root / "docs" / "nnunet")
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "out")]) == 1
    assert "found one that segments otherwise than nnU-Net does – dcd export" in capfd.readouterr().err


def test_ct_is_clipped_to_the_measured_percentiles_and_scaled(tmp_path):
    content = plans(normalization_schemes=["CTNormalization"])
    (scheme,) = read_configuration(content, "3d_fullres", tmp_path).normalization
    numbers = {"mean": 40.0, "std": 25.0, "lower": -20.0, "upper": 110.0}
    assert scheme == {"scheme": "CTNormalization", "use_mask": False, **numbers}


@pytest.mark.parametrize(("patch", "turned"), [([4, 16, 16], 1), ([8, 16, 16], 3), ([16, 4, 16], 3)])
def test_augmentation_stays_within_slices_where_the_first_side_is_short_as_in_nnu_net(tmp_path, patch, turned):
    """nnU-Net's ``do_dummy_2d``: the longest side is more than three times the first."""
    write_results(tmp_path / "results", patch_size=patch)
    task = build_task(read_results(tmp_path / "results" / NAME, None, "checkpoint_final.pth"))
    assert sum(angle > 0 for angle in task["fragments"]["rotate_range"]) == turned
