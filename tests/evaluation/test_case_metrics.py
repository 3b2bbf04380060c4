"""Dice, HD95 and NSD against plain NumPy and brute-force surface distances."""

import math

import numpy as np
import pytest
from scipy import ndimage

from dcd_ext.evaluation import case_metrics, summarise

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (0.45, 0.7, 3.1)]


def surface(mask):
    """Voxels of the mask with a face neighbour outside it, in voxel indices."""
    padded = np.pad(mask, 1)
    inside = ndimage.binary_erosion(padded, ndimage.generate_binary_structure(3, 1))
    return np.argwhere((padded & ~inside)[1:-1, 1:-1, 1:-1])


def directed(a, b, spacing):
    """Distance in mm from each surface voxel of ``a`` to the nearest one of ``b``, by trying all pairs."""
    difference = (surface(a)[:, None] - surface(b)[None]) * np.asarray(spacing)
    return np.sqrt((difference**2).sum(-1)).min(1)


def oracle(pred, truth, spacing, tolerance):
    there, back = directed(pred, truth, spacing), directed(truth, pred, spacing)
    close = (there <= tolerance).sum() + (back <= tolerance).sum()
    return {
        "dice": 2 * (pred & truth).sum() / (pred.sum() + truth.sum()),
        "hd95_mm": max(np.percentile(there, 95), np.percentile(back, 95)),
        "nsd": close / (len(there) + len(back)),
    }


def blobs(seed, shape, threshold=0.55):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    low, high = noise.min(), noise.max()
    return (noise - low) / (high - low) > threshold


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_brute_force(seed, spacing):
    shape = (13, 17, 9)
    pred, truth = blobs(seed, shape), blobs(seed + 100, shape)
    got = case_metrics(pred.astype(int), truth.astype(int), spacing, ["lesion"], 1.5)["lesion"]
    expected = oracle(pred, truth, spacing, 1.5)
    assert got["status"] == "scored"
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-5), name
    assert got["volume_true_ml"] == pytest.approx(truth.sum() * np.prod(spacing) / 1000)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_single_voxels(spacing):
    pred, truth = np.zeros((7, 8, 9), int), np.zeros((7, 8, 9), int)
    pred[1, 2, 3] = truth[4, 2, 7] = 1
    got = case_metrics(pred, truth, spacing, ["lesion"], 1.0)["lesion"]
    distance = math.hypot(3 * spacing[0], 4 * spacing[2])
    assert got["hd95_mm"] == pytest.approx(distance, rel=1e-5)
    assert (got["dice"], got["nsd"]) == (0, 0)


@pytest.mark.parametrize("distance", [1.0, 0.7, 3.1, 2.0])
@pytest.mark.parametrize(("share", "nsd"), [(0.999, 0.0), (1.0, 1.0), (1.001, 1.0)])
def test_a_distance_of_exactly_the_tolerance_is_within_it(distance, share, nsd):
    pred, truth = np.zeros((7, 8, 9), int), np.zeros((7, 8, 9), int)
    pred[3, 4, 4] = truth[3, 4, 5] = 1
    got = case_metrics(pred, truth, (5.0, 5.0, distance), ["lesion"], share * distance)["lesion"]
    assert got["nsd"] == nsd


@pytest.mark.parametrize("rounding", [1 - 3e-7, 1, 1 + 3e-7, 1 + 2e-6])
def test_a_spacing_rounded_in_the_header_changes_no_count(rounding):
    """Surfaces two voxels apart, a tolerance of two voxels: the spacing's last digit decides nothing."""
    pred, truth = np.zeros((12, 9, 9), int), np.zeros((12, 9, 9), int)
    truth[2:6, 2:7, 2:7], pred[2:8, 2:7, 2:7] = 1, 1
    assert case_metrics(pred, truth, (1.3 * rounding, 1.1, 0.9), ["lesion"], 2.6)["lesion"]["nsd"] == 1
    assert case_metrics(pred, truth, (1.301, 1.1, 0.9), ["lesion"], 2.6)["lesion"]["nsd"] < 1


def test_masks_at_the_border_are_cut_out_correctly():
    pred, truth = np.zeros((6, 6, 6), bool), np.zeros((6, 6, 6), bool)
    pred[:3], truth[:4] = True, True
    got = case_metrics(pred.astype(int), truth.astype(int), (1, 1, 2), ["lesion"], 0.5)["lesion"]
    expected = oracle(pred, truth, (1, 1, 2), 0.5)
    assert {n: got[n] for n in expected} == pytest.approx(expected, rel=1e-5)


EMPTY = np.zeros((10, 10, 10), int)
FULL = np.pad(np.ones((2, 2, 2), int), 4)


@pytest.mark.parametrize(
    ("pred", "truth", "status", "scores"),
    [
        (EMPTY, EMPTY, "empty", (None, None, None)),
        (EMPTY, FULL, "missed", (0, math.sqrt(100 + 100 + 2500), 0)),
        (FULL, EMPTY, "false_alarm", (0, math.sqrt(100 + 100 + 2500), 0)),
        (FULL, FULL, "scored", (1, 0, 1)),
    ],
)
def test_rule_for_empty_masks(pred, truth, status, scores):
    got = case_metrics(pred, truth, (1, 1, 5), ["lesion"], 1.0)["lesion"]
    assert got["status"] == status
    assert (got["dice"], got["hd95_mm"], got["nsd"]) == pytest.approx(scores)


def test_a_missed_lesion_makes_the_mean_worse():
    perfect = case_metrics(FULL, FULL, (1, 1, 1), ["lesion"], 1.0)
    missed = case_metrics(EMPTY, FULL, (1, 1, 1), ["lesion"], 1.0)
    nothing = case_metrics(EMPTY, EMPTY, (1, 1, 1), ["lesion"], 1.0)
    summary = summarise([perfect, missed, nothing], ["lesion"])
    lesion = summary["lesion"]
    assert lesion["hd95_mm"]["mean"] == pytest.approx(math.sqrt(300) / 2)
    assert {k: lesion["dice"][k] for k in ("mean", "sem", "n")} == {"mean": 0.5, "sem": 0.5, "n": 2}
    assert lesion["hd95_mm"]["nan_excluded"] == {"mean": 0.0, "sem": None, "n": 1}
    assert (lesion["empty"], lesion["missed"], lesion["false_alarm"]) == (1, 1, 0)


def test_summary_averages_classes_within_a_case_first():
    truth = np.zeros((8, 8, 8), int)
    truth[:2], truth[6:] = 1, 2
    pred = np.where(truth == 1, 1, 0)
    cases = [
        case_metrics(pred, truth, (1, 1, 1), ["a", "b"], 1.0),
        case_metrics(pred, pred, (1, 1, 1), ["a", "b"], 1.0),
    ]
    summary = summarise(cases, ["a", "b"])
    assert summary["mean"]["dice"]["mean"] == pytest.approx((0.5 + 1.0) / 2)
    assert summary["b"]["dice"]["n"] == 1


def test_all_empty_has_no_mean():
    cases = [case_metrics(EMPTY, EMPTY, (1, 1, 1), ["lesion"], 1.0)]
    nothing = {"mean": None, "sem": None, "n": 0}
    assert summarise(cases, ["lesion"])["mean"]["dice"] == {**nothing, "nan_excluded": nothing}
