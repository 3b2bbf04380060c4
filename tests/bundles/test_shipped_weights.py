"""The weights that are shipped are those whose scores are shipped, and every part of the bundle says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.commands.main import main as dcd
from dcd_ext.distill.teacher import load_teacher
from dcd_ext.io import sha256, write_json
from scripts.example import EXAMPLE, draw_example, example_command, shipped_bundle
from tests.conftest import BUNDLES, ROOT, make_workflow, read_json

RESULTS = {path.stem: read_json(path) for path in sorted((ROOT / "bundle_src" / "results").glob("*.json"))}
SHIPPED = [name for name, result in RESULTS.items() if "weights_sha256" in result]
# spread over the test part, first and last among them
FIVE = ("hippocampus_001", "hippocampus_095", "hippocampus_199", "hippocampus_304", "hippocampus_393")


def score(name: str, dataset_dir: Path, output: Path) -> dict:
    """The cases of ``metrics.json`` of a test part."""
    options = {"dataset_dir": str(dataset_dir), "output_dir": str(output), "section": "test", "num_workers": 0}
    workflow = make_workflow(name, "train", "evaluate", **options)
    workflow.run()
    workflow.finalize()
    return read_json(output / "metrics.json")


def agree(name: str, found: dict) -> None:
    """Every score of the cases is the shipped one but for rounding: another processor moves a voxel or two."""
    shipped = read_json(BUNDLES / name / "models" / "metrics.json")
    assert found["weights_sha256"] == shipped["weights_sha256"] == RESULTS[name]["weights_sha256"]
    for case, entry in found["cases"].items():
        for label, scores in entry["classes"].items():
            expected = shipped["cases"][case]["classes"][label]
            assert scores["dice"] == pytest.approx(expected["dice"], abs=2e-3), (case, label)
            assert scores["hd95_mm"] == pytest.approx(expected["hd95_mm"], abs=0.5), (case, label)


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_those_of_every_record(name: str) -> None:
    bundle, result = BundleFolder(BUNDLES / name), RESULTS[name]
    metrics = read_json(bundle.root / "models" / "metrics.json")
    assert sha256(bundle.weights) == result["weights_sha256"] == metrics["weights_sha256"]
    assert bundle.weights.stat().st_size < 13.2e6 and bundle.metadata["eval_metrics"] == result
    assert metrics["section"] == "test" and "dataset_dir" not in metrics
    means = [np.mean([c["dice"] for c in case["classes"].values()]) for case in metrics["cases"].values()]
    assert result["dice"]["mean"] == pytest.approx(np.mean(means), abs=5e-5)
    for file in ("README.md", "data_license.txt"):
        text = (bundle.root / "docs" / file).read_text("utf-8")
        assert "CC BY-SA 4.0. Weights trained on them are shared under the same licence." in text
    assert result["weights_sha256"][:16] in (bundle.root / "docs" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_whatever_loads_them_computes_in_float32(name: str) -> None:
    bundle = BundleFolder(BUNDLES / name)
    stored = {str(v.dtype) for v in torch.load(bundle.weights, weights_only=True).values()}
    assert stored == {f"torch.{RESULTS[name]['weights_precision']}"}
    teacher = load_teacher(lambda: bundle.parser().get_parsed_content("network_def"), str(bundle.weights), "cpu")
    inference = make_workflow(name, "inference", kind="infer", dataset_dir=str(EXAMPLE))
    for network in (bundle.network(), teacher, inference.parser.get_parsed_content("network")):
        assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_example_gets_its_shipped_score(name: str, tmp_path: Path) -> None:
    agree(name, score(name, EXAMPLE, tmp_path))
    picture, dice = draw_example(tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG") and min(dice.values()) > 0.8
    assert example_command(BUNDLES / name, tmp_path)[-3:-1] == ["test", "--output_dir"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_five_real_cases_get_their_shipped_scores(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "Task04_Hippocampus"
    files = {"image": "imagesTr", "label": "labelsTr"}
    entries = [{k: str(source / f / f"{case}.nii.gz") for k, f in files.items()} | {"case": case} for case in FIVE]
    write_json({"training": [], "test": entries}, tmp_path / "datalist.json")
    found = score(name, tmp_path, tmp_path / "out")
    assert sorted(found["cases"]) == sorted(FIVE)
    agree(name, found)


def test_weights_that_a_user_trained_are_not_called_shipped(tmp_path: Path) -> None:
    for role in ("student_dcd", "student", "teacher"):
        name = f"hippocampus_segmentation_{role}"
        (tmp_path / name / "models").mkdir(parents=True)
        shutil.copytree(BUNDLES / name / "configs", tmp_path / name / "configs")
    assert shipped_bundle(tmp_path) is None
    found = shipped_bundle()
    assert found is not None and found.name in SHIPPED
    torch.save({}, tmp_path / found.name / "models" / "model.pt")
    assert shipped_bundle(tmp_path) is None
    shutil.copyfile(BundleFolder(found).weights, tmp_path / found.name / "models" / "model.pt")
    assert shipped_bundle(tmp_path) == tmp_path / found.name


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_bundle_with_shipped_weights_verifies_and_packs_with_its_scores(name: str, tmp_path: Path, capsys) -> None:
    bundle = BUNDLES / name
    assert dcd(["verify", str(bundle)]) == 0
    assert f"{read_json(bundle / 'models' / 'metrics.json')['parameters']:,} parameters" in capsys.readouterr().out
    assert (
        dcd(["pack", str(bundle), "--metrics", str(bundle / "models" / "metrics.json"), "--output", str(tmp_path)]) == 0
    )
    [packed] = tmp_path.glob("*.zip")
    assert dcd(["verify", str(packed)]) == 0
