"""Which backend "auto" takes: the one that ends first, its start included."""

import json
from pathlib import Path

import pytest

from dcd_ext.errors import UserError
from dcd_ext.io import make_folder
from dcd_ext.predict import backends
from dcd_ext.predict.backends import Cost, choose_backend, fingerprint, measure

COSTS = {"openvino-bf16": None, "openvino": Cost(1.0, 0.1), "onnxruntime": Cost(0.2, 0.3), "int8": Cost(2.0, 0.05)}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What names a cache; no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "bundle"
    for name in ("models/model.pt", "configs/inference.json"):
        make_folder((root / name).parent)
        (root / name).write_text(name)
    return root


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Backends whose cost was asked for, in order."""
    asked: list[str] = []

    def prepare(root: Path, backend: str) -> Path:
        asked.append(backend)
        if COSTS[backend] is None:
            raise UserError("no bfloat16", backend)
        return Path(backend)

    monkeypatch.setattr(backends, "prepare", prepare)
    monkeypatch.setattr(backends, "measure", lambda folder, threads, precision: COSTS[folder.name])
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    return asked


def test_a_quick_start_wins_for_few_cases_only(bundle: Path, measured: list[str]) -> None:
    assert [choose_backend(bundle, "auto", "cpu", 2, cases) for cases in (1, 3, 5)] == [
        "onnxruntime",
        "onnxruntime",
        "openvino",
    ]
    assert measured == ["openvino-bf16", "openvino", "onnxruntime"]  # once, also what cannot be had


def test_an_int8_network_is_measured_when_it_is_there(bundle: Path, measured: list[str]) -> None:
    assert choose_backend(bundle, "auto", "cpu", 2, 1000) == "openvino"
    make_folder(bundle / "models" / "int8")
    (bundle / "models" / "int8" / "pipeline.json").write_text("{}")
    assert choose_backend(bundle, "auto", "cpu", 2, 1000) == "int8"
    assert measured[3:] == ["int8"]


def test_an_engine_that_is_installed_later_is_measured_then(
    bundle: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert choose_backend(bundle, "auto", "cpu", 2) == "eager" and measured == []
    monkeypatch.setattr(backends, "find_spec", lambda name: name)
    assert choose_backend(bundle, "auto", "cpu", 2) == "openvino"


def test_bfloat16_is_refused_where_it_would_be_float32(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_bf16", lambda: False)
    with pytest.raises(UserError, match="no bfloat16 – openvino-bf16 – .* – choose --backend openvino"):
        backends.prepare(bundle, "openvino-bf16")


def test_a_network_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text(json.dumps({"channels": ["T1"]}))
    with pytest.raises(UserError, match="network does not run – .* found KeyError: 'window'"):
        measure(tmp_path, 1, "f32")


@pytest.mark.parametrize("name", ["models/model.pt", "configs/inference.json"])
def test_another_network_has_another_fingerprint(name: str, bundle: Path) -> None:
    before = fingerprint(bundle)
    assert fingerprint(bundle) == before
    (bundle / name).write_text("other")
    assert fingerprint(bundle) != before
