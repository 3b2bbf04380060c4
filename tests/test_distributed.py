"""Nothing of torch.distributed is left running when Python ends."""

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


@pytest.mark.parametrize("network", ["wrapped", "plain"])
def test_no_thread_outlives_the_group(network, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER, "utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(tmp_path / "worker.py"), network]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
