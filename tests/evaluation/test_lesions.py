"""Lesion counts against a flood fill written out."""

import itertools

import numpy as np
import pytest

from dcd_ext.evaluation import case_metrics, lesion_counts


def components(mask):
    """Sets of voxels, grown over all 26 neighbours."""
    left, parts = {tuple(v) for v in np.argwhere(mask)}, []
    while left:
        part, front = set(), [left.pop()]
        while front:
            voxel = front.pop()
            part.add(voxel)
            for step in itertools.product((-1, 0, 1), repeat=3):
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near in left:
                    left.remove(near)
                    front.append(near)
        parts.append(part)
    return parts


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_a_flood_fill(seed):
    rng = np.random.default_rng(seed)
    pred, truth = (rng.random((9, 8, 7)) < 0.03 for _ in range(2))
    pred |= truth & (rng.random(truth.shape) < 0.5)
    parts_pred, parts_true = components(pred), components(truth)
    assert lesion_counts(pred, truth) == {
        "lesions_true": len(parts_true),
        "lesions_pred": len(parts_pred),
        "lesions_detected": sum(any(truth[v] and pred[v] for v in part) for part in parts_true),
        "lesions_false": sum(not any(truth[v] for v in part) for part in parts_pred),
    }


def test_f1_of_two_found_one_missed_one_invented():
    truth, pred = np.zeros((12, 12, 12), int), np.zeros((12, 12, 12), int)
    truth[1:3, 1:3, 1:3] = truth[5:7, 5:7, 5:7] = truth[10, 10, 10] = 1
    pred[2:4, 2:4, 2:4] = pred[6, 6, 6] = pred[0, 11, 0] = 1
    got = case_metrics(pred, truth, (1, 1, 1), ["lesion"], 1.0)["lesion"]
    assert (got["lesions_detected"], got["lesions_false"], got["lesions_true"]) == (2, 1, 3)
    assert got["lesion_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_corners_connect():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert lesion_counts(mask, mask)["lesions_true"] == 2
