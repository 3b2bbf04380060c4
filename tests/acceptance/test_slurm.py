"""The batch scripts, as they stand, in a real Slurm of two nodes on this machine (Debian: slurmctld, slurmd, munge)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import config_files
from tests.acceptance.test_several_processes import NAME, losses
from tests.bundles.exact import assert_same_files
from tests.conftest import ROOT, read_json
from tests.integration.conftest import slow_alone

DAEMONS = ("munged", "slurmctld", "slurmd")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    slow_alone,
    pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, DAEMONS)), reason=f"needs root and {DAEMONS}"),
]
SCRIPTS, PATIENCE = ROOT / "scripts" / "slurm", 600
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node1}-{node2}] CPUs=2 State=UNKNOWN
PartitionName=main Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Its daemons in the foreground, so that they end with the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = {"port": 16817, "node1": 16818, "node2": 16819}
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=socket.gethostname(), **ports))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {
            **os.environ,
            "PATH": path,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": str(ROOT),
        }
        self.environment |= {"MASTER_ADDR": "127.0.0.1", "DCD_PROCESSES": "1", "OMP_NUM_THREADS": "1"}
        places = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        places |= {"seed-file": "munge.seed"}
        munge = ["munged", "--foreground", "--force", *(f"--{key}={folder / name}" for key, name in places.items())]
        commands = [munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "node1"], ["slurmd", "-D", "-N", "node2"]]
        self.daemons = []
        for number, command in enumerate(commands):
            with (folder / f"daemon{number}.out").open("wb") as log:
                self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
            time.sleep(1)
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%T %D") == "idle 2", "two idle nodes")

    def wait_for(self, found, what):
        end = time.monotonic() + PATIENCE
        while not found():
            assert time.monotonic() < end, (what, self.run("squeue"), self.run("sinfo"))
            time.sleep(0.5)

    def run(self, *command: object) -> str:
        result = subprocess.run(list(map(str, command)), env=self.environment, capture_output=True, text=True)
        return result.stdout.strip()

    def submit(self, *arguments: object) -> str:
        """A job's number."""
        command = ["sbatch", "--parsable", f"--output={self.folder}/%x-%j.log", *map(str, arguments)]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=ROOT)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def finish(self, job: str) -> None:
        self.wait_for(lambda: not self.run("squeue", "-h", "-j", job), f"the end of job {job}")
        states = self.run("scontrol", "show", "job", job)
        logs = "\n".join(p.read_text("utf-8", "replace") for p in self.folder.glob("*.log") if "-" in p.stem)
        assert states.count("JobState=COMPLETED") == states.count("JobState="), states + logs

    def end(self) -> None:
        self.run("scancel", "--user=root")
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.end()


def options(bundle, folder):
    where = ["--dataset_dir", bundle.data, "--output_dir", folder, "--ckpt_dir", folder / "models"]
    return [*where, "--max_epochs", 3, "--iterations_per_epoch", 4, "--validate::inferer::overlap", 0.0]


def test_two_nodes_train_what_two_processes_do(bundles, cluster, tmp_path):
    bundle = bundles(NAME)
    nodes, one = tmp_path / "nodes", tmp_path / "one"
    script = ["--nodes=2", SCRIPTS / "train.sbatch", bundle.root]
    cluster.finish(cluster.submit(*script, *options(bundle, nodes)))
    bundle.monai("run", "training", *config_files("train", "multi_gpu_train"), *options(bundle, one), processes=2)
    assert_same_files(one, nodes, "models/model.pt")
    assert losses(one) == losses(nodes)


def test_a_job_that_is_told_to_end_is_queued_again_and_resumed(bundles, cluster, tmp_path):
    bundle = bundles(NAME)
    whole, told = tmp_path / "whole", tmp_path / "told"
    cluster.finish(cluster.submit(SCRIPTS / "train.sbatch", bundle.root, *options(bundle, whole)))
    job = cluster.submit(SCRIPTS / "train.sbatch", bundle.root, *options(bundle, told))
    cluster.wait_for((told / "checkpoint_last.pt").exists, "the first epoch")
    cluster.run("scancel", "--batch", "--signal=TERM", job)
    cluster.wait_for(lambda: "Restarts=1" in cluster.run("scontrol", "show", "job", job), "the job in the queue again")
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm lets it wait for two minutes
    cluster.finish(job)
    assert_same_files(whole, told, "models/model.pt")
    assert losses(whole) == losses(told)


def test_an_array_segments_what_one_command_does(bundles, cluster, tmp_path):
    bundle = bundles(NAME)
    command = [bundle.root, bundle.data / "datalist.json", "--backend", "eager"]
    job = cluster.submit("--array=1-3", SCRIPTS / "predict.sbatch", *command, "--output", tmp_path / "array")
    cluster.finish(job)
    one = ["dcd", "predict", *command, "--output", tmp_path / "one"]
    subprocess.run(list(map(str, one)), env=cluster.environment, check=True, capture_output=True)
    masks = sorted(p.name for p in (tmp_path / "one").glob("*.nii.gz"))
    assert masks and masks == sorted(p.name for p in (tmp_path / "array").glob("*.nii.gz"))
    assert all((tmp_path / "one" / m).read_bytes() == (tmp_path / "array" / m).read_bytes() for m in masks)
    assert len(read_json(tmp_path / "array" / "summary.json")["cases"]) == len(masks)
