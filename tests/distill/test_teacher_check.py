"""The teacher is scored before the first epoch: right data pass, data it was not trained for stop the run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.transforms import AsDiscreted
from torch import nn

from dcd_ext.distill import TeacherCheck
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_json
from dcd_ext.weights import save_checkpoint, save_weights


class Cases(torch.utils.data.Dataset):
    """Two sequences, in each of which another structure is bright; ``order`` of the channels as they are read."""

    def __init__(self, order: tuple[int, ...] = (0, 1), labels: tuple[int, ...] = (0, 1, 2), number: int = 9) -> None:
        self.order, self.labels, self.number = list(order), torch.tensor(labels), number
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read.append(index)
        image = torch.zeros(2, 8, 8, 8)
        image[0, 1 : 3 + index % 3, 1:5, 1:5] = 1
        image[1, 5:7, 2:7, 2 : 4 + index % 4] = 1
        label = image[0] + 2 * image[1]
        return {"image": image[self.order], "label": self.labels[label.long()][None]}


def segmenter() -> nn.Module:
    """Background where neither sequence is bright, class 1 where the first, 2 where the second is; not perfect."""
    network = nn.Sequential(nn.AvgPool3d(3, 1, 1), nn.Conv3d(2, 3, 1))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[0, 0], [1, 0], [0, 1]]).reshape(3, 2, 1, 1, 1))
        network[1].bias.copy_(torch.tensor([0.4, 0, 0]))
    return network


def evaluator(cases: Cases, network: nn.Module) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(cases, batch_size=1),
        network=FrozenTeacher(network),
        postprocessing=AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=3),
        key_val_metric={"val_mean_dice": MeanDice(False, output_transform=from_engine(["pred", "label"]))},
    )


def bundle(root: Path, scores: Any = None, **record: Any) -> str:
    """Weights in a bundle whose metadata hold ``scores``, ``models/metrics.json`` further ones."""
    weights = root / "models" / "model.pt"
    save_checkpoint(segmenter().state_dict(), weights)
    write_json({"eval_metrics": {} if scores is None else scores}, root / "configs" / "metadata.json")
    if record:
        write_json(record, root / "models" / "metrics.json")
    return str(weights)


def check(make_trainer: Any, weights: str, data: Cases, **options: Any) -> None:
    """Train a student for an epoch after the check."""
    make_trainer(handlers=[TeacherCheck(evaluator(data, segmenter()), weights, **options)], max_epochs=1).run()


@pytest.mark.parametrize(
    "scores", [{"mean_dice": 0.85}, {"val_mean_dice": 85.0, "hd95": 3.0}, {"dice": {"mean": 0.85, "a": 0.1}}]
)
def test_a_teacher_that_scores_as_recorded_passes(scores, make_trainer, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cases = Cases()
    check(make_trainer, bundle(tmp_path, scores), cases)
    assert cases.read == [0, 2, 4, 6]  # evenly spread
    assert "val_mean_dice 0.8" in caplog.text and "0.850 is recorded in metadata.json" in caplog.text
    assert "best metric" not in caplog.text


@pytest.mark.parametrize(
    "cases",
    [Cases(order=(1, 0)), Cases(labels=(0, 2, 1)), Cases(labels=(1, 0, 0), number=2)],
    ids=["channels", "labels", "two labels"],
)
def test_other_channels_or_labels_stop_the_run(cases, make_trainer, tmp_path):
    steps: list[int] = []
    trained = {"summary": {"mean": {"dice": {"mean": 0.87, "sem": 0.01}}}}
    with pytest.raises(UserError) as caught:
        check(make_trainer, bundle(tmp_path, {"mean_dice": 0.85}, **trained), cases)
    line = str(caught.value)
    assert "expected 0.870 (metrics.json), found val_mean_dice 0.0" in line and not steps
    assert "channels or labels" in line and "--teacher_cases 0" in line and "\n" not in line


def test_a_score_that_is_too_good_stops_the_run(make_trainer, tmp_path):
    """Cases that the teacher was trained on."""
    with pytest.raises(UserError, match=r"expected 0.300 \(metadata.json\), .* another fold"):
        check(make_trainer, bundle(tmp_path, {"mean_dice": 0.3}), Cases())


@pytest.mark.parametrize(
    "scores", [None, {"val_accuracy": 0.99}, {"dice_sem": 0.1}, {"mean_dice": "good"}, [0.1], {"dice": -3}]
)
def test_without_a_comparable_record_the_score_is_logged(scores, make_trainer, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    check(make_trainer, bundle(tmp_path, scores), Cases(order=(1, 0)))
    lines = [r.getMessage() for r in caplog.records if "teacher" in r.getMessage().lower()]
    assert len(lines) == 1 and "val_mean_dice 0.0" in lines[0] and "no score to compare with" in lines[0]


def test_the_weights_own_record_comes_first(make_trainer, tmp_path):
    weights = bundle(tmp_path, {"mean_dice": 0.85})
    save_weights(segmenter().state_dict(), weights, {"scores": {"val_mean_dice": 0.1}})
    with pytest.raises(UserError, match=r"expected 0.100 \(model.pt\)"):
        check(make_trainer, weights, Cases())


@pytest.mark.parametrize("same", [True, False])
def test_a_record_of_other_weights_is_not_compared(same, make_trainer, tmp_path):
    weights = bundle(tmp_path)
    digest = sha256(weights) if same else "0" * 64
    scores = {"eval_metrics": {"mean_dice": 0.2, "weights_sha256": digest}}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(scores))
    if same:
        with pytest.raises(UserError, match="expected 0.200"):
            check(make_trainer, weights, Cases())
    else:
        check(make_trainer, weights, Cases())


def test_it_can_be_left_out_and_is_not_repeated_on_resume(make_trainer, tmp_path):
    weights, cases = bundle(tmp_path, {"mean_dice": 0.85}), Cases(order=(1, 0))
    check(make_trainer, weights, cases, cases=0)
    trainer = make_trainer(handlers=[TeacherCheck(evaluator(cases, segmenter()), weights)])
    trainer.state.epoch, trainer.state.iteration = 1, 2
    trainer.run()
    assert cases.read == []


def test_a_wide_spread_of_few_cases_is_weak_evidence(tmp_path):
    weights = bundle(tmp_path, {"mean_dice": 0.85})
    handler = TeacherCheck(evaluator(Cases(), segmenter()), weights, cases=2)
    handler.compare("val_mean_dice", 0.55, 0.2)
    with pytest.raises(UserError, match="does not score as recorded"):
        handler.compare("val_mean_dice", 0.55, 0.02)


def test_training_is_the_same_with_and_without(make_trainer, tmp_path):
    weights, states = bundle(tmp_path), []
    for cases in (0, 3):
        torch.manual_seed(1)
        check(make_trainer, weights, Cases(), cases=cases)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
