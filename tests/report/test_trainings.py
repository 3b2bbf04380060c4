"""Methods that were trained several times: means over trainings, and tests that know their spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.report import compare, load_runs
from dcd_ext.report.statistics import holm, trainings_test
from tests.report.conftest import one_case, write_run


def simulate(rng: np.random.Generator, trainings: int, cases: np.ndarray, spread: tuple) -> np.ndarray:
    """Scores (trainings, cases) of a method: of the cases, of each training, of method and case, and the rest."""
    training, method, rest = spread
    own = rng.normal(0, training, (trainings, 1)) + rng.normal(0, method, len(cases))
    return cases + own + rng.normal(0, rest, (trainings, len(cases)))


@pytest.mark.parametrize("trainings", [(2, 2), (3, 3), (1, 4)])
@pytest.mark.parametrize("spread", [(0.006, 0.0, 0.01), (0.004, 0.006, 0.01), (0.0, 0.01, 0.02)])
def test_the_same_method_tests_different_at_most_as_often_as_the_level(trainings: tuple, spread: tuple) -> None:
    """A paired test over the cases of the means, beside it, does so several times as often."""
    rng, trials, level = np.random.default_rng(3), 400, 0.05
    different, over_cases, covered = 0, 0, 0
    for _ in range(trials):
        cases = rng.normal(0.85, 0.04, 40)
        one, other = (simulate(rng, number, cases, spread) for number in trainings)
        got = trainings_test(one, other)
        different += got["trainings_p"] < level
        covered += got["ci95"][0] <= 0 <= got["ci95"][1]
        over_cases += stats.ttest_rel(one.mean(0), other.mean(0)).pvalue < level
    # the level, and three standard errors of a simulated share
    assert different / trials <= level + 3 * (level * (1 - level) / trials) ** 0.5
    assert covered == trials - different
    if spread[0] > spread[1]:
        assert over_cases / trials > 0.3


@pytest.mark.parametrize(
    ("trainings", "least", "most"), [((3, 3), 0.05, 0.14), ((2, 6), 0.26, 0.41), ((1, 4), 0.42, 0.58)]
)
def test_unequal_spread_costs_the_level_with_unequal_numbers(trainings: tuple, least: float, most: float) -> None:
    """The shares that docs/evaluate.md states."""
    rng, trials, different = np.random.default_rng(5), 400, 0
    for _ in range(trials):
        cases = rng.normal(0.85, 0.04, 40)
        spreads = (0.01, 0.0, 0.01), (0.001, 0.0, 0.01)
        one, other = (simulate(rng, number, cases, spread) for number, spread in zip(trainings, spreads, strict=True))
        different += trainings_test(one, other)["trainings_p"] < 0.05
    assert least < different / trials < most


@pytest.mark.parametrize("spread", [(0.006, 0.0, 0.01), (0.004, 0.006, 0.01), (0.0, 0.01, 0.02)])
def test_a_given_network_equal_to_a_method_on_average_tests_different_at_most_as_often(spread: tuple) -> None:
    rng, trials, level, different = np.random.default_rng(8), 400, 0.05, 0
    for _ in range(trials):
        cases = rng.normal(0.85, 0.04, 40)
        given, other = simulate(rng, 1, cases, (0.0, *spread[1:])), simulate(rng, 3, cases, spread)
        different += trainings_test(given, other, fixed=True)["trainings_p"] < level
    assert different / trials <= level + 3 * (level * (1 - level) / trials) ** 0.5


def test_a_difference_larger_than_the_spread_of_trainings_is_found() -> None:
    rng = np.random.default_rng(4)
    cases = rng.normal(0.85, 0.04, 40)
    one, other = (simulate(rng, 3, cases + gain, (0.003, 0.003, 0.01)) for gain in (0.03, 0.0))
    got = trainings_test(one, other)
    assert got["trainings_p"] < 0.01 and 0.01 < got["ci95"][0] < 0.03 < got["ci95"][1] < 0.05
    back = trainings_test(other, one)
    assert back["trainings_p"] == pytest.approx(got["trainings_p"])
    assert back["ci95"] == pytest.approx([-x for x in got["ci95"][::-1]])


def test_each_part_alone_is_the_test_over_it() -> None:
    """Without spread over cases the test is the t-test over trainings; without one over trainings, the paired one."""
    means = [np.array([0.80, 0.84, 0.83]), np.array([0.79, 0.77])]
    got = trainings_test(*(np.repeat(m[:, None], 30, 1) for m in means))
    assert got["trainings_p"] == pytest.approx(stats.ttest_ind(*means).pvalue, rel=1e-6)
    expected = stats.ttest_ind(*means).confidence_interval()
    assert got["ci95"] == pytest.approx([expected.low, expected.high])
    got = trainings_test(np.full((1, 30), 0.9), np.repeat(means[0][:, None], 30, 1), fixed=True)
    assert got["trainings_p"] == pytest.approx(stats.ttest_1samp(means[0], 0.9).pvalue, rel=1e-6)
    rng = np.random.default_rng(5)
    cases = [rng.normal(0.8, 0.1, 20) for _ in range(2)]
    got = trainings_test(*(np.repeat(c[None], 3, 0) for c in cases))
    paired = stats.ttest_rel(*cases)
    assert got["trainings_p"] == pytest.approx(paired.pvalue, rel=1e-6)
    assert got["ci95"] == pytest.approx([*paired.confidence_interval()])


@pytest.mark.parametrize(("trainings", "cases"), [((1, 1), 9), ((1, 2), 9), ((3, 3), 1)])
def test_too_few_trainings_or_cases_have_no_test(trainings: tuple, cases: int) -> None:
    scores = (np.random.default_rng(0).random((n, cases)) for n in trainings)
    assert trainings_test(*scores) == {"trainings_p": None, "ci95": None}


def _folders(root: Path, values: dict[str, np.ndarray]) -> list[str]:
    """``name=folder`` of each training; the values are (trainings, cases, classes)."""
    folders = []
    for name, trainings in values.items():
        for seed, cases in enumerate(trainings):
            made: dict = {}
            for i, dice in enumerate(cases):
                made |= one_case([None if np.isnan(d) else float(d) for d in dice], f"case{i}")
            folders.append(f"{name}={write_run(root / name / str(seed), made)}")
    return folders


def test_scores_are_means_over_trainings_with_their_deviation(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    values = {n: rng.uniform(0.5, 0.9, (k, 12, 2)) for n, k in (("teacher", 1), ("student", 3), ("dcd", 2))}
    values["dcd"][1, 4, 0] = np.nan
    got = compare(load_runs(_folders(tmp_path, values)))
    core, mean = (got["results"]["dice"][name] for name in ("core", "mean"))
    over = values["student"].mean((1, 2))
    assert mean["student"]["trainings"] == pytest.approx({"mean": over.mean(), "sd": over.std(ddof=1), "n": 3})
    assert mean["student"]["mean"] == pytest.approx(over.mean()) and "trainings" not in mean["teacher"]
    # the case that one training excludes is the mean of the other in the scores, and in no test over trainings
    assert core["dcd"]["mean"] == pytest.approx(np.nanmean(values["dcd"], 0)[:, 0].mean())
    kept = np.delete(np.arange(12), 4)
    expected = trainings_test(values["dcd"][:, kept, 0], values["student"][:, kept, 0])
    difference = core["dcd"]["difference"]
    assert difference["trainings_p"] == expected["trainings_p"] and difference["ci95"] == expected["ci95"]
    # nor in the difference beside it, which lies in the middle of its interval
    assert (difference["n"], difference["unpaired"]) == (11, 1)
    assert difference["mean"] == pytest.approx(np.mean(expected["ci95"]))
    adjusted = holm([expected["trainings_p"], core["teacher"]["difference"]["trainings_p"]])
    assert difference["trainings_p_holm"] == pytest.approx(adjusted[0])
    assert [got["runs"][n]["trainings"] for n in values] == [1, 3, 2] and got["runs"]["dcd"]["empty"] == 0.5


def test_one_training_does_not_count_twice(tmp_path: Path) -> None:
    """A forgotten seed or a copied folder: without spread, a chance difference would test significant."""
    runs = [("plain", "a"), ("plain", "a"), ("dcd", "a"), ("dcd", "b")]
    folders = [
        f"{name}={write_run(tmp_path / str(i), one_case([0.5, 0.6]), weights_sha256=digest * 64)}"
        for i, (name, digest) in enumerate(runs)
    ]
    with pytest.raises(UserError, match="trainings of one method with the same weights – plain – expected others, fo"):
        load_runs(folders)
    assert [len(run.trainings) for run in load_runs(folders[1:])] == [0, 2]


def test_the_report_says_what_its_p_values_rest_on(tmp_path: Path, capsys) -> None:
    values = {n: np.random.default_rng(7).uniform(0.5, 0.9, (2, 9, 2)) for n in ("plain", "dcd")}
    folders, page = _folders(tmp_path, values), tmp_path / "report.html"
    arguments = ["--output", str(page), "--pictures", "0"]
    assert dcd(["compare", *folders[::2], *arguments]) == 0
    text = " ".join(page.read_text("utf-8").split())
    assert "rest on the cases of one training per run" in capsys.readouterr().out
    assert "a small p says that these weights differ, not that the methods do" in text
    assert dcd(["compare", *folders, *arguments]) == 0
    text, printed = " ".join(page.read_text("utf-8").split()), capsys.readouterr().out
    assert "p (trainings and cases)" in printed and "standard deviation over trainings: plain 2, dcd 2" in printed
    assert "of one training per run" not in text + printed and "Clark" in text


@pytest.mark.parametrize(
    ("section", "words"),
    [("test", "test part, which chose nothing"), ("validation", "fold 0 (selection scores: it also chose the epoch)")],
)
def test_the_page_says_whether_its_cases_chose_the_weights(section: str, words: str, tmp_path: Path) -> None:
    folders = [str(write_run(tmp_path / name, one_case([0.5, 0.6]), section=section)) for name in ("a", "b")]
    page = tmp_path / "report.html"
    assert dcd(["compare", *folders, "--output", str(page), "--pictures", "0"]) == 0
    assert words in page.read_text("utf-8") and words in page.with_suffix(".md").read_text("utf-8")
