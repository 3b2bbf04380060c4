"""The cost of a student family."""

import json
import re

import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles import widths as family
from scripts import bench_family
from tests.conftest import BUNDLES, read_json

STUDENT = BUNDLES / "hippocampus_segmentation_student"


def run(tmp_path, *arguments):
    command = ["--task", "hippocampus", "--small", "--output", str(tmp_path), *map(str, arguments)]
    return bench_family.main(command)


def test_small_run_writes_table_numbers_and_plot(tmp_path, capsys):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"parameters": 412921, "summary": {"mean": {"dice": {"mean": 0.8704}}}}))
    assert run(tmp_path, "--factors", 1, 4, 8, "--run", f"4={metrics}") == 0
    table = capsys.readouterr().out
    result = json.loads((tmp_path / "family_hippocampus.json").read_text("utf-8"))
    teacher, student, smallest = result["members"]
    # the exact counts of the design, see README
    assert (teacher["parameters"], student["parameters"]) == (6478169, 412921)
    assert student["features"] == [8, 8, 16, 32] and smallest["features"] == [8, 8, 8, 16]
    assert student["relative"]["parameters_saved"] == pytest.approx(1 - 412921 / 6478169)
    assert teacher["flops_per_patch"] > student["flops_per_patch"] > smallest["flops_per_patch"] > 0
    assert result["patch"] == [16, 16, 16] and result["volume"] == [24, 24, 24]
    assert result["memory_format"] == "torch.channels_last_3d"
    for member in result["members"]:
        for key in ("seconds_per_patch", "seconds_per_volume"):
            assert 0 < member[key]["min"] <= member[key]["median"] <= member[key]["max"]
    assert "6,478,169" in table and "93.6 %" in table and "0.8704" in table
    page, plot = ((tmp_path / f"family_hippocampus.{end}").read_text("utf-8") for end in ("md", "svg"))
    alt = re.search(r"!\[(.+)\]\(family_hippocampus.svg\)", page)[1]
    assert "reduction factor 4: 0.41 million parameters" in alt and "mean Dice 0.8704" in alt
    assert f"<dc:title>{alt}</dc:title>" in plot
    assert "python scripts/bench_family.py --task hippocampus --small" in page and "| 412,921 | 93.6 % |" in page


def test_calls_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(family.time, "perf_counter", lambda: clock[0])

    def call(name, seconds):
        def function():
            calls.append(name)
            clock[0] += next(seconds)

        return function

    timed = {1: call(1, iter([99, 99, 1, 5, 2])), 4: call(4, iter([99, 99, 7, 7, 7]))}
    times = family.time_in_turns(timed, repeats=3, warm_up=2)
    assert calls == [1, 4] * 5
    assert times == {1: {"median": 2, "min": 1, "max": 5}, 4: {"median": 7, "min": 7, "max": 7}}
    assert family.time_in_turns(timed, repeats=0, warm_up=2) == {1: None, 4: None}


@pytest.mark.parametrize("task", ["brats24", "isles22", "hippocampus"])
def test_smallest_patch_has_two_voxels_a_side_at_the_deepest_stage(task):
    expected = {"brats24": [32, 64, 64], "isles22": [64, 64, 64], "hippocampus": [16, 16, 16]}
    assert family.smallest_patch(str(BUNDLES / f"{task}_segmentation_student")) == expected[task]


@pytest.mark.slow
def test_a_real_volume_and_weights(prepared, tmp_path):
    config = {**read_json(STUDENT / "configs" / "inference.json"), "reduction_factor": 8}
    weights, data = tmp_path / "model.pt", prepared("hippocampus")
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), weights)
    assert run(tmp_path, "--factors", 8, "--dataset_dir", data, "--run", f"8={weights}") == 0
    result = json.loads((tmp_path / "family_hippocampus.json").read_text("utf-8"))
    held_out = next(c for c in read_json(data / "datalist.json")["training"] if c["fold"] == 0)["image"]
    assert result["volume"] == list(nib.load(data / held_out).shape)
    assert 0 <= result["members"][0]["mean_dice"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--factors", 0], "unusable reduction factor – --factors"),
        (["--patch", 16, 16, 12], "patch does not fit the network – --patch – expected a multiple of 8 along axis 2"),
        (["--repeats", 0], "nothing to time – --repeats"),
        (["--task", "spine"], "unknown task – --task – expected brats24, hippocampus, isles22, found 'spine'"),
        (["--factors", 8, "--run", "4=metrics.json"], r"unusable run – --run – expected R=FILE with R in \[8\]"),
    ],
)
def test_errors(arguments, message, tmp_path, capsys):
    assert run(tmp_path, *arguments) == 1
    assert re.match(f"error: {message}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_network_is_refused(tmp_path, capsys):
    metrics, weights = tmp_path / "metrics.json", tmp_path / "model.pt"
    metrics.write_text(json.dumps({"parameters": 7}))
    weights.write_bytes(b"")
    assert run(tmp_path, "--factors", 8, "--volume-repeats", 0, "--run", f"8={metrics}") == 1
    assert "metrics of another network" in capsys.readouterr().err
    assert run(tmp_path, "--factors", 8, "--volume-repeats", 0, "--run", f"8={weights}") == 1
    assert "weights cannot be scored" in capsys.readouterr().err
