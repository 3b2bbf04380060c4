"""Processes that train together end together, and leave nothing of torch.distributed running when Python ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists threads in /proc")
WORKER = """
import sys, time
from pathlib import Path
import torch
import dcd_ext

def threads():
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]

dcd_ext.distributed.init_process_group("cpu")
dcd_ext.distributed.init_process_group("cpu")
network = torch.nn.Linear(3, 2)
if sys.argv[1] == "wrapped":
    network = torch.nn.parallel.DistributedDataParallel(network)
network(torch.ones(4, 3)).sum().backward()
assert len(dcd_ext.distributed.gather_objects(torch.distributed.get_rank())) == 2
assert threads()
dcd_ext.distributed.destroy_process_group(network)
assert not torch.distributed.is_initialized()
time.sleep(0.2)  # an ended thread may be listed a moment longer
assert not threads(), threads()
dcd_ext.distributed.destroy_process_group(network.module if sys.argv[1] == "wrapped" else network)
"""


DIVERGING = """
from types import SimpleNamespace
import torch
from dcd_ext.distributed import destroy_process_group, init_process_group
from dcd_ext.errors import UserError
from dcd_ext.handlers.stop_on_non_finite import StopOnNonFinite

init_process_group("cpu")
rank, network = torch.distributed.get_rank(), torch.nn.Linear(1, 1)
output, batch = {"loss": torch.tensor([1.0, float("inf")][rank])}, {"case": [f"case{rank}"]}
state = SimpleNamespace(output=output, batch=batch, epoch=1, iteration=3, epoch_length=4)
engine = SimpleNamespace(state=state, scaler=None, optimizer=torch.optim.SGD(network.parameters()))
try:
    StopOnNonFinite("checkpoint_last.pt")(engine)
except UserError as error:
    print(f"process {rank}: {error}", flush=True)
destroy_process_group(network)
"""


def torchrun(worker, folder, *arguments):
    (folder / "worker.py").write_text(worker, "utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(folder / "worker.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("network", ["wrapped", "plain"])
def test_no_thread_outlives_the_group(network, tmp_path):
    torchrun(WORKER, tmp_path, network)


def test_all_processes_end_when_one_diverges(tmp_path):
    printed = torchrun(DIVERGING, tmp_path)
    for process in (0, 1):
        assert f"process {process}: the training diverged – epoch 1, step 3, cases case1 – " in printed
