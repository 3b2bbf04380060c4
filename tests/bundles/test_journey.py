"""Pack a bundle, publish it on loopback, get it the ways MONAI offers, and use it where nothing of ours is."""

import functools
import os
import re
import shlex
import subprocess
import sys
import zipfile

import nibabel as nib
import numpy as np
import pytest
from monai import bundle as monai_bundle

from dcd_ext.bundles.card import readme_commands
from dcd_ext.bundles.pack import pack
from dcd_ext.bundles.verify import verify
from dcd_ext.commands.main import main as dcd
from tests.bundles.conftest import NAME
from tests.bundles.hub import served
from tests.processes import fork_module

pytestmark = pytest.mark.slow
ZIP = f"{NAME}_v0.1.0.zip"


def monai(*arguments, cwd, **environment):
    """``python -m monai.bundle`` where ``dcd_ext`` is not installed, in another directory."""
    blocker = cwd / "blocker"
    blocker.mkdir(exist_ok=True)
    (blocker / "dcd_ext.py").write_text("raise ImportError('dcd_ext is not installed here')")
    path = os.pathsep.join([str(blocker), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "monai.bundle", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=300)


def infer(root, data, output, run):
    """The label map of one case; ``run`` starts ``python -m monai.bundle``."""
    arguments = ["run", "inference", "--bundle_root", root, "--config_file", root / "configs" / "inference.json"]
    result = run(*arguments, "--dataset_dir", data, "--output_dir", output)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = output.rglob("*_seg.nii.gz")
    return nib.load(file)


def test_packed_served_downloaded_and_used_elsewhere(small, packed, prepared, tmp_path):
    """One user's journey; the label map is that of the bundle which was packed."""
    with served(packed.parent) as address:
        url = f"{address}/{ZIP}"
        result = monai("download", "--name", NAME, "--url", url, "--bundle_dir", tmp_path / "got", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    got = tmp_path / "got" / NAME
    assert dcd(["verify", "--trust", str(got)]) == 0
    data = prepared("hippocampus")
    theirs = infer(got, data, tmp_path / "theirs", functools.partial(monai, cwd=tmp_path))
    ours = infer(small, data, tmp_path / "ours", lambda *arguments: fork_module("monai.bundle", arguments, tmp_path))
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert np.array_equal(ours.affine, theirs.affine) and len(np.unique(np.asarray(ours.dataobj))) > 1

    code = (
        "import monai.bundle, torch, sys\n"
        f"for kind in sys.argv[1:]:\n"
        f"    net = monai.bundle.load({NAME!r}, bundle_dir='got', workflow_type=kind)\n"
        "    assert isinstance(net, torch.nn.Module)\n"
        f"files = {{'load_ts_module': True, 'config_files': ('inference.json',)}}\n"
        f"ts, meta, extra = monai.bundle.load({NAME!r}, bundle_dir='got', **files)\n"
        "assert meta['version'] == '0.1.0' and 'network_def' in extra['inference.json'].decode()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "inference", "train"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_flipped_byte_is_refused_with_the_files_name(packed, tmp_path, capsys):
    """By MONAI's download, by verify's reading, and in an unpacked bundle."""
    with zipfile.ZipFile(packed) as archive:
        entry = archive.getinfo(f"{NAME}/models/model.pt")
        archive.extractall(tmp_path / "unpacked")
    data = bytearray(packed.read_bytes())
    data[entry.header_offset + 200 + entry.file_size // 2] ^= 1
    broken = tmp_path / ZIP
    broken.write_bytes(data)
    assert dcd(["verify", "--trust", str(broken)]) == 1
    assert "damaged file – models/model.pt – " in capsys.readouterr().err
    arguments = ["download", "--name", NAME, "--url", broken.as_uri(), "--bundle_dir", "got"]
    result = fork_module("monai.bundle", arguments, tmp_path)
    assert result.returncode != 0 and "models/model.pt" in result.stderr
    config = tmp_path / "unpacked" / NAME / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"overlap": 0.5', '"overlap": 0.4'))
    assert dcd(["verify", "--trust", str(config.parents[1])]) == 1
    assert "file differs from what was packed – configs/inference.json – " in capsys.readouterr().out


def test_weights_beside_the_zip(small, tmp_path):
    with served(tmp_path / "dist") as address:
        (tmp_path / "dist").mkdir()
        folder = f"{NAME}_v0.1.0_files"
        path = pack(small, small / "models" / "model.pt", tmp_path / "dist", large_files_url=f"{address}/{folder}")
        assert dcd(["verify", "--trust", str(path)]) == 0
        with zipfile.ZipFile(path) as archive:
            assert not [n for n in archive.namelist() if n.endswith((".pt", ".ts"))]
            archive.extractall(tmp_path)
        got = tmp_path / NAME
        monai_bundle.download_large_files(bundle_path=str(got))
        assert {r.status for r in verify(got, trust=True) if r.check in ("sha256", "weights", "torchscript")} == {"ok"}
        (got / "models" / "model.pt").unlink()
        listing = got / "large_files.yml"
        listing.write_text(re.sub("hash_val: [0-9a-f]{64}", "hash_val: " + "0" * 64, listing.read_text()))
        with pytest.raises(ValueError, match="sha256 hash check of"):
            monai_bundle.download_large_files(bundle_path=str(got))


# one short pass through training, instead of hours
SHORT_RUN = ["--max_epochs", "1", "--iterations_per_epoch", "1", "--val_interval", "1", "--num_workers", "0"]


def test_every_command_of_the_readme_runs(packed, prepared, tmp_path):
    """The plain student's card trains, evaluates and infers; installing and preparing data are left out."""
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    root, data, ran = tmp_path / NAME, str(prepared("hippocampus")), []
    for command in readme_commands((root / "README.md").read_text("utf-8")):
        words = [data if w.startswith("prepared/") else w for w in shlex.split(command)]
        words += SHORT_RUN if "training" in words else []
        programs = {"torchrun": [sys.executable, "-m", "torch.distributed.run"]}
        if "pip" in words or words[0] == "dcd":
            continue
        if words[:3] == ["python", "-m", "monai.bundle"]:
            result = fork_module("monai.bundle", words[3:], root)
        else:
            words[:1] = programs.get(words[0], words[:1])
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            result = subprocess.run(words, cwd=root, capture_output=True, text=True, env=environment, timeout=300)
        assert result.returncode == 0, command + result.stdout + result.stderr
        ran.append(command)
    assert len(ran) == 6 and ran[0] == "sha256sum -c SHA256SUMS"
