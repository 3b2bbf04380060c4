"""The evaluator's handler, from label files to ``metrics.json``, ``metrics.csv`` and saved predictions."""

import csv

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from dcd_ext.errors import UserError
from dcd_ext.evaluation import ScoringPool, case_metrics
from dcd_ext.handlers import MetricsJson, metrics_json
from dcd_ext.io import write_json
from tests.conftest import ToyNet, read_json

AFFINE = np.array([[0.0, 0, 5, 3], [-0.5, 0, 0, 1], [0, 0.75, 0, -2], [0, 0, 0, 1]])
SHIFT = np.array([[0, 0, 0, 0.2], [0] * 4, [0] * 4, [0] * 4])
NAMES = ["a", "b"]


@pytest.fixture
def cases(tmp_path):
    """Predictions and label files of five cases with an oblique, left-handed header."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(5):
        truth, pred = (rng.integers(0, 3, (6, 7, 5)).astype(np.uint8) for _ in range(2))
        path = tmp_path / f"label{i}.nii.gz"
        nib.save(nib.Nifti1Image(truth, AFFINE), path)
        made.append({"case": f"case{i}", "truth": str(path), "pred": _prediction(pred)})
    write_json({"task": "toy", "modality": {"0": "T1", "1": "T2"}}, tmp_path / "datalist.json")
    return made


def _prediction(labels, affine=AFFINE):
    return MetaTensor(torch.from_numpy(labels)[None].float(), affine=affine)


def evaluate(items, folder, **options):
    engine = Engine(lambda _engine, batch: [{"pred": batch[0]["pred"]}])
    handler = MetricsJson(str(folder / "out"), NAMES, 1.0, ToyNet(), 0, **options)
    handler.attach(engine)
    engine.state.device = torch.device("cpu")
    engine.run([[item] for item in items], max_epochs=1)
    return folder / "out"


def test_file_has_scores_provenance_and_conventions(cases, tmp_path):
    options = {"dataset_dir": str(tmp_path), "patch": [1, 8, 8, 8], "save_predictions": True}
    out = evaluate(cases[::-1], tmp_path, **options)
    metrics = read_json(out / "metrics.json")
    assert (metrics["task"], metrics["modalities"]) == ("toy", ["T1", "T2"])
    assert list(metrics["cases"]) == [f"case{i}" for i in range(5)]
    for rule in ("empty_rule", "nan_rule", "lesion_rule", "environment", "seconds_per_case"):
        assert metrics[rule]
    # two convolutions of the encoder, one of them on half the grid, and the head
    assert metrics["flops_per_patch"] == 2 * (512 * 27 * 2 + 64 * 27 * 2 * 4 + 512 * 2 * 2)
    for item in cases:
        truth = np.asarray(nib.load(item["truth"]).dataobj)
        expected = case_metrics(item["pred"][0].numpy().astype(int), truth, (0.5, 0.75, 5.0), NAMES, 1.0)
        assert metrics["cases"][item["case"]]["classes"] == expected
        saved = nib.load(out / "predictions" / f"{item['case']}.nii.gz")
        assert saved.get_data_dtype() == np.uint8 and np.allclose(saved.affine, AFFINE)
        assert np.array_equal(np.asarray(saved.dataobj), item["pred"][0].numpy())
    assert not list(out.rglob(".tmp-*"))


def test_a_prediction_is_saved_where_its_label_lies(cases, tmp_path):
    """Within the tolerance of grids that count as the same."""
    cases[0]["pred"] = _prediction(cases[0]["pred"][0].numpy(), AFFINE + SHIFT / 4)
    out = evaluate(cases, tmp_path, save_predictions=True)
    saved = nib.load(out / "predictions" / "case0.nii.gz")
    assert np.array_equal(saved.affine, nib.load(cases[0]["truth"]).affine)


def test_csv_has_the_same_numbers(cases, tmp_path):
    out = evaluate(cases, tmp_path)
    metrics = read_json(out / "metrics.json")
    with open(out / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    for row in rows:
        values = metrics["cases"][row["case"]]["classes"][row["class"]]
        assert float(row["hd95_mm"]) == values["hd95_mm"] and float(row["volume_true_ml"]) == values["volume_true_ml"]
        assert row["status"] == "scored" and row["nsd_tolerance_mm"] == "1.0"


def test_order_and_threads_do_not_matter(cases, tmp_path):
    one = read_json(evaluate(cases, tmp_path / "1", workers=1) / "metrics.json")
    two = read_json(evaluate(cases[::-1], tmp_path / "2", workers=3) / "metrics.json")
    assert one["summary"] == two["summary"]
    assert [c["classes"] for c in one["cases"].values()] == [c["classes"] for c in two["cases"].values()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": _prediction(np.zeros((6, 7, 4)))}, r"different grids \(shape\) – case0, .*6×7×5, found 6×7×4"),
        ({"pred": _prediction(np.zeros((6, 7, 5)), AFFINE[[1, 0, 2, 3]])}, r"different grids \(orientation\) – case0"),
        (
            {"pred": _prediction(np.zeros((6, 7, 5)), AFFINE + SHIFT)},
            "at the farthest corner, found 0.2 mm",
        ),
        ({"case": "case1"}, "duplicate case case1 – datalist.json – run dcd check"),
    ],
)
# ignite logs the error before it is raised
@pytest.mark.filterwarnings("ignore")
def test_a_prediction_that_does_not_fit_is_an_error(cases, tmp_path, change, message):
    cases[0].update(change)
    with pytest.raises(UserError, match=message):
        evaluate(cases, tmp_path)
    metrics = tmp_path / "out" / "metrics.json"
    # a case that comes twice ends the run; one that cannot be scored is listed
    assert metrics.exists() == ("pred" in change)
    if metrics.exists():
        assert list(read_json(metrics)["failed"]) == ["case0"]


def test_where_no_case_is_left_there_is_no_result_not_even_an_old_one(cases, tmp_path):
    out = evaluate(cases, tmp_path)
    for item in cases:
        item["truth"] = str(tmp_path / "gone.nii.gz")
    with pytest.raises(UserError, match="5 of 5 cases failed"):
        evaluate(cases, tmp_path)
    assert not (out / "metrics.json").exists()


def test_a_label_of_another_task_is_an_error(cases, tmp_path):
    nib.save(nib.Nifti1Image(np.full((6, 7, 5), 4, np.uint8), AFFINE), cases[0]["truth"])
    with pytest.raises(UserError, match=r"value that is no class – case0, .*expected values 0 to 2, found 4 to 4"):
        evaluate(cases, tmp_path)


@pytest.mark.parametrize("in_turns", [False, True])
@pytest.mark.parametrize("jobs", [0, 1, 5])
def test_pool_runs_every_job_once_in_order(in_turns, jobs):
    pool = ScoringPool(2, in_turns)
    for i in range(jobs):
        pool.submit(lambda i=i: i)
        assert not (in_turns and pool._running)
    assert pool.finish() == list(range(jobs))


def test_a_case_scored_by_two_processes_is_refused(cases, tmp_path, monkeypatch):
    """As if each of two processes had evaluated the whole list. Real processes: tests/acceptance."""
    monkeypatch.setattr(metrics_json, "gather_objects", lambda share: [share, share])
    with pytest.raises(UserError, match="case case0 in two processes – evaluation – shard the cases"):
        evaluate(cases, tmp_path)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_other_processes_write_nothing(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_json, "is_main_process", lambda: False)
    out = evaluate(cases, tmp_path)
    assert not (out / "metrics.json").exists() and not (out / "metrics.csv").exists()


@pytest.mark.parametrize(("device", "in_turns"), [("cpu", True), ("cuda:0", False), (None, True)])
def test_scoring_takes_turns_with_a_prediction_on_the_cpu_only(device, in_turns, tmp_path, monkeypatch):
    """Beside it, it would slow down the prediction whose seconds are recorded. No GPU is used here."""
    seen = []
    monkeypatch.setattr(metrics_json.ev, "ScoringPool", lambda _workers, in_turns: seen.append(in_turns))
    engine = Engine(lambda *_: None)
    engine.state.device = device and torch.device(device)
    MetricsJson(str(tmp_path), NAMES, 1.0, ToyNet(), 0).started(engine)
    assert seen == [in_turns]
