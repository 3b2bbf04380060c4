"""Checkpoints are read without running code, and loaded strictly."""

import pickle
import re

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.weights import load_weights, origin_of, save_checkpoint
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
    expected = r"1 keys differ\) – .*key head.bias – expected shape \(2,\), found no such key"
    with pytest.raises(UserError, match=expected):
        load_weights(build(), tmp_path / "model.pt", "train it")


@pytest.mark.filterwarnings("ignore:.*quantize", "ignore:TypedStorage")
@pytest.mark.parametrize("kind", ["without values", "quantized"])
def test_tensors_that_hold_no_plain_numbers_are_refused(kind, tmp_path):
    state = ToyNet(channels=4).state_dict()
    bias = state["head.bias"]
    state["head.bias"] = (
        bias.to("meta") if kind == "without values" else torch.quantize_per_tensor(bias, 1, 0, torch.qint8)
    )
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=f"weights cannot be read .*key head.bias .* found a .*{kind}"):
        load_weights(build(), tmp_path / "model.pt", "train it")


def test_a_bare_pickle_is_refused_without_warning(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"head.bias": [1.0]}, protocol=4))
    with pytest.raises(UserError, match="weights cannot be read"):
        load_weights(build(), tmp_path / "model.pt", "train it")


def test_a_pickle_that_runs_code_is_refused(tmp_path, capfd):
    class Attack:
        def __reduce__(self):
            return (print, ("code from a checkpoint",))

    torch.save({"head.bias": Attack()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"weights cannot be read .* expected tensors only"):
        load_weights(build(), tmp_path / "model.pt", "train it")
    assert origin_of(tmp_path / "model.pt") is None
    assert "code from a checkpoint" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**ToyNet(channels=4).state_dict(), "head.bias": torch.zeros(2, dtype=torch.complex64)}, "found .*complex64"),
        ({**ToyNet(channels=4).state_dict(), "head.bias": torch.ones(2).to_sparse()}, "found shape .*sparse"),
        (torch.zeros(3), "weights cannot be read .* expected a dictionary, found Tensor – train it"),
        (
            {"epoch": 3},
            r"weights do not fit .* key encoder.* found no such key|key epoch – .*found a value of type int",
        ),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    save_checkpoint(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_weights(build(), tmp_path / "model.pt", "train it")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda content: content[: len(content) // 2], r"half of a file, or one of another kind \([\d,]+ bytes\)"),
        (
            lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a pointer of Git LFS .get the file with: git lfs pull",
        ),
        (lambda _: b"<!DOCTYPE html><title>404</title>", "half of a file, or one of another kind"),
        (lambda _: b"", r"half of a file, or one of another kind \(0 bytes\)"),
    ],
)
def test_what_is_no_checkpoint_is_told_without_torch_s_advice(tmp_path, spoil, found):
    path = tmp_path / "model.pt"
    save_checkpoint(ToyNet().state_dict(), path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        UserError, match=rf"^weights cannot be read – .*model.pt – .* found {found}.* – train it$"
    ) as error:
        load_weights(build(), path, "train it")
    assert "weights_only=False" not in str(error.value)
