"""On a GPU what the CPU gives: every method's steps, mixed precision, exact resume, an unchanged teacher.

``DCD_DEVICE=cpu`` runs them without one, to see that they run.
"""

import math
import os

import pytest
import torch

from tests.bundles.exact import assert_same_files, losses_of, run_until
from tests.bundles.test_methods import METHODS, open_method, options, teacher  # noqa: F401
from tests.conftest import make_workflow, read_json

DEVICE = os.environ.get("DCD_DEVICE") or ("cuda:0" if torch.cuda.is_available() else "")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.skipif(not DEVICE, reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),
]
ON = f"$torch.device('{DEVICE}')"
# of the float32 results, not of TensorFloat-32
RELATIVE = 1e-4


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def run_method(method, options, folder, teacher, **override):  # noqa: F811
    """Losses of three steps, the record of the last epoch, and the gradient that the last step took."""
    workflow = open_method(method, options, folder, teacher, **override)
    losses = losses_of(workflow)
    workflow.run()
    network = workflow.parser.get_parsed_content("network")
    gradients = {name: p.grad.detach().double().cpu() for name, p in network.named_parameters() if p.grad is not None}
    return losses, read_json(folder / "training.json")["epochs"][-1], gradients


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_equal_the_cpus(method, options, teacher, tmp_path):  # noqa: F811
    """The second and third loss follow from the gradients of the steps before."""
    cpu = run_method(method, options, tmp_path / "cpu", teacher, device="$torch.device('cpu')", amp=False)
    gpu = run_method(method, options, tmp_path / "gpu", teacher, device=ON, amp=False)
    assert gpu[0] == pytest.approx(cpu[0], rel=RELATIVE)
    assert gpu[1]["kd_loss"] == pytest.approx(cpu[1]["kd_loss"], rel=RELATIVE)
    norm = math.sqrt(sum(float(g.square().sum()) for g in cpu[2].values()))
    difference = math.sqrt(sum(float((g - gpu[2][name]).square().sum()) for name, g in cpu[2].items()))
    # three steps add up the rounding of instance norms over few voxels
    assert difference <= 10 * RELATIVE * norm


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision_stays_near_float32(method, dtype, options, teacher, tmp_path):  # noqa: F811
    if dtype == "float16" and DEVICE == "cpu":
        pytest.skip("float16 autocast is CUDA's")
    plain = run_method(method, options, tmp_path / "float32", teacher, device=ON, amp=False)
    where = "train::trainer::amp_kwargs"
    mixed = run_method(
        method, options, tmp_path / dtype, teacher, device=ON, amp=True, **{where: {"dtype": f"$torch.{dtype}"}}
    )
    assert all(map(math.isfinite, mixed[0]))
    # before the first update; afterwards a gradient scaler may have skipped a step
    assert mixed[0][0] == pytest.approx(plain[0][0], rel=0.05)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_plain_roles_train_in_mixed_precision(role, options, tmp_path):  # noqa: F811
    from tests.bundles.test_methods import SETTINGS

    where = {"output_dir": str(tmp_path), "ckpt_dir": str(tmp_path / "models")}
    settings = {**SETTINGS, **where, "dataset_dir": options["dataset_dir"], "device": ON, "amp": True}
    workflow = make_workflow(f"hippocampus_segmentation_{role}", "train", **settings)
    losses = losses_of(workflow)
    workflow.run()
    assert len(losses) == 4 and all(map(math.isfinite, losses))
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("method", ["dcd", "recokd"])
def test_resumes_exactly(method, amp, options, teacher, tmp_path):  # noqa: F811
    before = torch.load(teacher, weights_only=True)
    where = {"device": ON, "amp": amp}
    whole = open_method(method, options, tmp_path / "whole", teacher, **where)
    expected = losses_of(whole)
    whole.run()
    parts = open_method(method, options, tmp_path / "parts", teacher, **where)
    losses = losses_of(parts)
    run_until(parts, epoch=3)
    resumed = open_method(method, options, tmp_path / "parts", teacher, resume=True, **where)
    rest = losses_of(resumed)
    resumed.run()
    assert losses + rest == expected
    assert_same_files(tmp_path / "whole", tmp_path / "parts", "models/model.pt", "checkpoint_last.pt")
    after = resumed.parser.get_parsed_content("teacher").network.state_dict()
    assert all(torch.equal(value, after[name].cpu()) for name, value in before.items())
