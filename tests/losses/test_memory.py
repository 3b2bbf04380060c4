"""Peak memory of one forward and backward pass at half the brats24 patch, against plain feature MSE.

``DCD_FULL_PATCH=1 pytest tests/losses/test_memory.py -s`` prints the table of docs/methods.md, at the whole patch.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcd_ext.distill import PromptTuner
from dcd_ext.losses import CWDLoss, DCDLoss, FitNetLoss, FreeKDLoss, IFVDLoss, LogitsLoss, ReCoKDLoss

PARTS = 1 if os.environ.get("DCD_FULL_PATCH") else 2
SIDES = [(112, 160, 128), (56, 80, 64), (28, 40, 32), (14, 20, 16), (7, 10, 8), (7, 5, 4)]
GRIDS = [(x, y, z // PARTS) for x, y, z in SIDES]
STUDENT, TEACHER, CLASSES = [8, 16, 32, 64, 80, 80], [32, 64, 128, 256, 320, 320], 5
STATUS = Path("/proc/self/status")


class PlainMSE(nn.Module):
    """What anybody would write first."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv3d(s, t, 1) for s, t in zip(STUDENT, TEACHER, strict=True))

    def forward(self, student, teacher, *_others):
        return sum(F.mse_loss(c(s), t) for c, s, t in zip(self.convs, student, teacher, strict=True))


class AllButDeepest(nn.Module):
    """ReCo-KD leaves the deepest stage out."""

    def __init__(self, loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, student, teacher, *others):
        return self.loss(student[:-1], teacher[:-1], *others)


def make_losses(prompts):
    PromptTuner(nn.Identity(), [""] * 6, TEACHER).save(prompts)
    return {
        "logits": LogitsLoss(),
        "feature": FitNetLoss(STUDENT, TEACHER),
        "cwd": CWDLoss(on="logits"),
        "cwd_feat": CWDLoss(STUDENT, TEACHER),
        "cwd_mse_preset": CWDLoss(STUDENT, TEACHER, divergence="mse_preset"),
        "ifvd": IFVDLoss(STUDENT, TEACHER, CLASSES),
        "freekd": FreeKDLoss(STUDENT, TEACHER, prompts),
        "freekd_noprompt": FreeKDLoss(STUDENT, TEACHER, "none"),
        "recokd": AllButDeepest(ReCoKDLoss(STUDENT[:-1], TEACHER[:-1], CLASSES)),
        "dcd": DCDLoss(STUDENT, TEACHER),
    }


def make_batch():
    volumes = [[torch.randn(1, c, *g) for c, g in zip(widths, GRIDS, strict=True)] for widths in (STUDENT, TEACHER)]
    student_output, teacher_output = (torch.randn(1, CLASSES, *GRIDS[0]) for _ in range(2))
    for x in (*volumes[0], student_output):
        x.requires_grad_()
    return *volumes, student_output, teacher_output, torch.randint(CLASSES, (1, 1, *GRIDS[0]), dtype=torch.uint8)


def memory(name):
    """A figure of this process in MiB: VmRSS (now) or VmHWM (the most since it was reset)."""
    return int(next(line for line in STATUS.read_text().splitlines() if line.startswith(name)).split()[1]) / 1024


def extra_memory(loss, batch):
    """MiB and seconds of this thread's process that one forward and backward pass takes."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.process_time()
    loss(*batch).backward()
    seconds = time.process_time() - start
    for x in (*batch[0], batch[2], *loss.parameters()):
        x.grad = None
    return memory("VmHWM") - before, seconds


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_method_needs_three_times_the_memory_of_plain_mse(tmp_path, capsys):
    batch, plain = make_batch(), PlainMSE()
    extra_memory(plain, batch)
    baseline, seconds = extra_memory(plain, batch)
    rows = [("plain MSE", baseline, seconds)]
    for name, loss in make_losses(str(tmp_path / "prompts.pt")).items():
        rows.append((name, *extra_memory(loss, batch)))
    with capsys.disabled():
        for name, extra, seconds in rows:
            print(f"\n| {name} | {extra:.0f} | {extra / baseline:.2f} | {seconds / rows[0][2]:.1f} |", end="")
    assert baseline > 500 / PARTS
    assert all(extra < 3 * baseline for _, extra, _ in rows)
