"""What width costs: the benchmark of the networks' sizes."""

import json
import re

import pytest

from dcd_ext.errors import UserError
from scripts import bench_widths, benchmark

SMALL = ["--task", "hippocampus", "--small", "--repeats", "1", "--volume_repeats", "1"]


def run(tmp_path, *arguments):
    bench_widths.main([*SMALL, "--output", str(tmp_path), *map(str, arguments)])


def test_small_run_writes_table_numbers_and_plot(tmp_path, capsys):
    run(tmp_path, "--factors", 1, 4, 8)
    table = capsys.readouterr().out
    result = json.loads((tmp_path / "widths_hippocampus.json").read_text("utf-8"))
    teacher, student, smallest = result["members"]
    # the exact counts of the design, see README
    assert (teacher["parameters"], student["parameters"]) == (6478169, 412921)
    assert student["features"] == [8, 8, 16, 32] and smallest["features"] == [8, 8, 8, 16]
    assert student["relative"]["parameters_saved"] == pytest.approx(1 - 412921 / 6478169)
    assert teacher["flops_per_patch"] > student["flops_per_patch"] > smallest["flops_per_patch"] > 0
    # two voxels a side at the deepest stage
    assert result["patch"] == [16, 16, 16] and result["volume"] == [24, 24, 24]
    assert result["memory_format"] == "torch.channels_last_3d"
    for member in result["members"]:
        for key in ("seconds_per_patch", "seconds_per_volume"):
            assert 0 < member[key]["min"] <= member[key]["median"] <= member[key]["max"]
    assert "6,478,169" in table and "93.6 %" in table
    page, plot = ((tmp_path / f"widths_hippocampus.{end}").read_text("utf-8") for end in ("md", "svg"))
    alt = re.search(r"!\[(.+)\]\(widths_hippocampus.svg\)", page)[1]
    assert "r = 4: " in alt and f"<dc:title>{alt}</dc:title>" in plot
    assert "python -m scripts.bench_widths --task hippocampus --small" in page and "| 412,921 | 93.6 % |" in page


def test_calls_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def call(name, seconds):
        def function():
            calls.append(name)
            clock[0] += next(seconds)

        return function

    timed = {1: call(1, iter([99, 99, 1, 5, 2])), 4: call(4, iter([99, 99, 7, 7, 7]))}
    times = benchmark.time_in_turns(timed, repeats=3, warm_up=2)
    assert calls == [1, 4] * 5
    assert times == {1: [1, 5, 2], 4: [7, 7, 7]}
    assert benchmark.spread(times[1]) == {"median": 2, "min": 1, "max": 5}
    assert benchmark.time_in_turns(timed, repeats=0, warm_up=2) == {1: [], 4: []} and benchmark.spread([]) is None


def test_each_network_has_an_inferer_of_its_own(tmp_path, monkeypatch):
    """One inferer records two networks on a GPU; of more, none would be replayed."""
    timed = []
    monkeypatch.setattr(bench_widths, "time_in_turns", lambda calls, *_: timed.append(calls) or {r: [1] for r in calls})
    run(tmp_path, "--factors", 1, 2, 4, 8)
    assert len({id(call.func) for call in timed[1].values()}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch", 16, 16, 12], r"patch does not fit the network – --patch – expected multiples of \[8, 8, 8\]"),
    ],
)
def test_errors(arguments, message, tmp_path):
    with pytest.raises(UserError, match=f"^{message}"):
        run(tmp_path, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--factors", 0], ["--repeats", 0], ["--task", "spine"]])
def test_options_out_of_range(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, *arguments)
    assert re.search(f"argument {arguments[0]}: ", capsys.readouterr().err)
