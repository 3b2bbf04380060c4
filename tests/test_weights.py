"""Checkpoints are read without running code, and loaded strictly."""

import re

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.weights import load_weights, save_checkpoint
from tests.conftest import ToyNet


def build():
    return ToyNet(channels=4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "network."])
def test_wrapper_prefixes_and_a_model_entry_are_understood(tmp_path, prefix):
    network = ToyNet()
    state = {prefix + k: v for k, v in network.state_dict().items()}
    save_checkpoint({"model": state}, tmp_path / "wrapped.pt")
    other = ToyNet()
    load_weights(other, tmp_path / "wrapped.pt", "-")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_missing_file(tmp_path):
    path = str(tmp_path / "model.pt")
    expected = f"weights not found – {path} – expected a checkpoint, found no such file – train it"
    with pytest.raises(UserError, match=re.escape(expected)):
        load_weights(build(), path, "train it")


def test_wrong_width_names_key_and_both_shapes(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(ToyNet(channels=2).state_dict(), path)
    with pytest.raises(UserError, match=r"weights do not fit the network .* expected shape .* found shape .* train it"):
        load_weights(build(), path, "train it")


def test_missing_key_is_an_error(tmp_path):
    state = ToyNet(channels=4).state_dict()
    del state["head.bias"]
    save_checkpoint(state, tmp_path / "model.pt")
    expected = r"1 keys differ\) – .*key head.bias – expected shape \(2,\), found shape none"
    with pytest.raises(UserError, match=expected):
        load_weights(build(), tmp_path / "model.pt", "train it")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (print, ("code from a checkpoint",))

    torch.save({"head.bias": Attack()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"weights cannot be read .* expected tensors only"):
        load_weights(build(), tmp_path / "model.pt", "train it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "weights cannot be read .* expected a dictionary, found Tensor – train it"),
        ({"epoch": 3}, r"weights do not fit .* key encoder.* found shape none|key epoch – .*found shape of a int"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    save_checkpoint(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_weights(build(), tmp_path / "model.pt", "train it")
