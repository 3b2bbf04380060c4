"""Verify: our bundles pass, and each check can fail."""

import json
import shutil
import subprocess
import zipfile

import pytest
import torch

from dcd_ext.bundles.build import build_bundle
from dcd_ext.bundles.checks import FAILED, OK, SKIPPED, Subject, run_checks
from dcd_ext.bundles.contents import open_contents
from dcd_ext.bundles.export import TS_TOLERANCE
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.pack import pack
from dcd_ext.bundles.sources import find_task
from dcd_ext.bundles.sums import write_sums
from dcd_ext.bundles.verify import verify
from dcd_ext.bundles.verify_network import NETWORK_CHECKS
from dcd_ext.bundles.verify_text import TEXT_CHECKS
from dcd_ext.commands.main import main as dcd
from dcd_ext.io import write_json
from tests.bundles.conftest import NAME
from tests.conftest import BUNDLES, ROOT, read_json


@pytest.fixture(autouse=True)
def no_program(monkeypatch):
    """Whatever is verified, no program is started."""

    def never(*_args, **_kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess.Popen, "__init__", never)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in BUNDLES.iterdir()))
def test_our_bundles(name):
    """All nine, as they are committed: what needs weights does not apply."""
    results = {r.check: r for r in verify(BUNDLES / name) if r.check not in ("weights", "torchscript", "onnx")}
    assert results.pop("sha256").status == SKIPPED and results["sources"].detail.startswith("identical: ")
    assert {r.status for r in results.values()} == {OK} and len(results) == 1 + len(TEXT_CHECKS) - 1 + 2, results


@pytest.fixture
def unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    return tmp_path / NAME


def test_a_packed_bundle(packed, unpacked, capsys):
    """Its configs were made small by hand, so that they are trusted here; by itself nothing of them is executed."""
    assert dcd(["verify", "--trust", str(packed), str(unpacked)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" ok       torchscript  largest difference") == 2
    assert printed.count(" differs  sources      3 file(s) are not those of the sources") == 2
    assert '\n    -    "features": [16, 32, 64, 128],\n' in printed
    assert dcd(["verify", str(packed)]) == 1
    printed = capsys.readouterr().out
    assert " FAILED   sources " in printed and printed.count("; --trust runs it") == len(NETWORK_CHECKS)


def one(root, name):
    """Result of a single check."""
    (check,) = [c for c in (*TEXT_CHECKS, *NETWORK_CHECKS) if c.__name__ == f"check_{name}"]
    return run_checks(Subject(BundleFolder(root), open_contents(root), root), [check])[0]


def edit(root, file, change):
    path = root / file
    path.write_text(change(path.read_text("utf-8")), "utf-8")


def in_json(**values):
    return lambda text: json.dumps({**json.loads(text), **values})


def other_weights(root):
    state = torch.load(root / "models" / "model.pt", weights_only=True)
    torch.save({k: v + 100 * TS_TOLERANCE for k, v in state.items()}, root / "models" / "model.pt")


DEFECTS = {
    "files": lambda r: (r / "LICENSE").unlink(),
    "version": lambda r: edit(r, "configs/metadata.json", in_json(version="9.9.9")),
    "metadata": lambda r: edit(r, "configs/metadata.json", lambda t: t.replace('"task"', '"tasks"')),
    "paths": lambda r: edit(r, "configs/train.json", in_json(dataset_dir="/home/me/data")),
    "readme": lambda r: edit(r, "docs/README.md", lambda t: t.replace("--dataset_dir", "--datset_dir")),
    "weights": lambda r: edit(r, "docs/README.md", lambda t: t.replace(" parameters", "0 parameters")),
    "network": lambda r: edit(
        r, "configs/metadata.json", lambda t: t.replace('"num_channels": 3', '"num_channels": 2')
    ),
    "torchscript": other_weights,
    "properties": lambda r: edit(r, "configs/train.json", lambda t: t.replace('"max_epochs"', '"max_epoch"')),
}


@pytest.mark.parametrize("check", DEFECTS)
def test_each_check_fails_where_it_should(check, unpacked):
    DEFECTS[check](unpacked)
    write_sums(unpacked)
    assert one(unpacked, check).status == FAILED
    assert one(unpacked, "sha256").status == OK


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_fail(value, unpacked):
    state = torch.load(unpacked / "models" / "model.pt", weights_only=True)
    state[list(state)[-1]][0] = value
    torch.save(state, unpacked / "models" / "model.pt")
    write_sums(unpacked)
    result = one(unpacked, "weights")
    assert result.status == FAILED and "not finite" in result.detail


def test_a_large_file_belongs_elsewhere(unpacked):
    (unpacked / "docs" / "atlas.bin").write_bytes(bytes(26_000_000))
    result = one(unpacked, "sizes")
    assert result.status == FAILED and "docs/atlas.bin" in result.detail


def test_debug_records_with_paths_are_found(unpacked):
    """What ``ckpt_export`` alone would have left in the archive."""
    path = unpacked / "models" / "model.ts"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/code/__torch__/net.py.debug_pkl", b"\x80\x02X\x10\x00\x00\x00/home/me/net.py q")
    result = one(unpacked, "paths")
    assert result.status == FAILED and "models/model.ts" in result.detail


def test_network_definitions_are_equal_in_train_and_inference():
    """What distillation changes is no part of the network: plain and distilled student infer with the same config."""
    plain, distilled = (read_json(BUNDLES / f"{NAME}{s}" / "configs" / "inference.json") for s in ("", "_dcd"))
    assert plain == distilled


def test_results_of_runs_are_none_of_the_bundle(unpacked):
    """A tracked run leaves its executed config, with this machine's paths, in the folder where it ran."""
    write_json({"output_dir": str(unpacked / "eval")}, unpacked / "eval" / "config_20260101_000000.json")
    write_json({"output_dir": "/home/me/results"}, unpacked / "eval" / "config_20260101_000001.json")
    result = one(unpacked, "paths")
    assert result.status == OK, result


RUN = "python -m monai.bundle run inference --config_file configs/inference.json"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (RUN, None),
        (RUN + " --inferer::overlap 0.25 --preprocessing#transforms#0#image_only False", None),
        ("dcd prepare msd --source a --output b", None),
        ("sh -c 'touch mark' -m monai.bundle run inference", "an unknown program sh"),
        ('python -c "import os" -m monai.bundle run inference', "an unknown program python"),
        ("torchrun --log-dir=logs -m monai.bundle run inference", "an unknown program torchrun"),
        ("python -m pip install -r https://example.org/x", "an unknown program python"),
        ("dcd prepares msd", "no command dcd prepares"),
        ("dcd ../x", "no command dcd ../x"),
        ("sha256sum -c SHA512SUMS", "no SHA512SUMS"),
        (RUN + " --device \"$open('x', 'w')\"", "an expression as --device"),
        (RUN + " --output_dir %x", "an expression as --output_dir"),
        (RUN + " --inferer::overlaps 1", "no config entry inferer::overlaps"),
        (RUN + " --bundle_root /other", "another bundle /other"),
        (RUN + " --logging_file configs/log.conf", "no configs/log.conf"),
        (RUN + " --output_dir", "options and values"),
        (RUN.replace("run inference", "run infer"), "no run id infer"),
        (RUN.replace("configs/inference.json", "/etc/hostname"), "no /etc/hostname"),
        (RUN.replace("configs/inference.json", "../evil.json"), "no ../evil.json"),
        (RUN.replace("configs/inference.json", "\"['configs/inference.json','configs/x.json']\""), "no configs/x.json"),
    ],
)
def test_commands_of_the_readme_are_read_not_run(command, problem, unpacked):
    # it exists and would run: refused because it lies outside of the bundle
    shutil.copyfile(unpacked / "configs" / "inference.json", unpacked.parent / "evil.json")
    for file in ("docs/README.md", "README.md"):
        edit(unpacked, file, lambda text: text.replace("sha256sum -c SHA256SUMS", command))
    write_sums(unpacked)
    result = one(unpacked, "readme")
    assert (result.status, problem or "commands") == (FAILED if problem else OK, problem or "commands"), result
    assert problem is None or problem in result.detail


def test_a_bundle_copied_away_alone_passes(tmp_path, capsys):
    """Its README names the collection's scripts, which are not there."""
    shutil.copytree(BUNDLES / NAME, tmp_path / NAME, ignore=shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval"))
    assert dcd(["verify", str(tmp_path / NAME)]) == 0
    assert "6 commands" in capsys.readouterr().out


def test_no_committed_file_of_a_bundle_is_large(monkeypatch):
    """Weights are looked at here, because a folder does not say what git has of it."""
    monkeypatch.undo()
    listing = subprocess.run(["git", "ls-files", "-z", "bundles"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git repository")
    assert max((ROOT / file).stat().st_size for file in listing.stdout.split("\0") if file) < 25e6


def test_each_bundle_is_verified(packed, capsys):
    assert dcd(["verify", "--trust", "nowhere", str(packed)]) == 1
    printed = capsys.readouterr()
    assert "error: not a bundle – nowhere" in printed.err and " ok       torchscript" in printed.out


def shipped(tmp_path):
    """A bundle with the shipped configs, which a test may change."""
    leave = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval")
    return shutil.copytree(BUNDLES / NAME, tmp_path / NAME, ignore=leave)


@pytest.mark.slow
def test_a_packed_bundle_as_shipped(tmp_path, capsys, monkeypatch):
    """Its configs are identical to the rebuilt ones after packing, too, so that all checks run without --trust."""
    monkeypatch.undo()  # packing starts MONAI's export
    root = shipped(tmp_path)
    folder = BundleFolder(root)
    torch.save(folder.parser().get_parsed_content("network_def").state_dict(), folder.weights)
    assert dcd(["verify", str(pack(root, folder.weights, tmp_path / "dist"))]) == 0
    printed = capsys.readouterr().out
    assert " ok       sources      identical: " in printed and " ok       torchscript  largest" in printed


CHANGES = {
    "a value": (
        lambda r: edit(r, "configs/train.json", lambda t: t.replace('"learning_rate": 0.01', '"learning_rate": 0.02')),
        '+    "learning_rate": 0.02,',
    ),
    "an expression": (
        lambda r: edit(r, "configs/inference.json", lambda t: t.replace('"$import os"', '"$import os; os.abort()"')),
        '+        "$import os; os.abort()"',
    ),
    "metadata": (
        lambda r: edit(r, "configs/metadata.json", lambda t: t.replace("Research.", r"\u001b[1mClinical.")),
        r"\u001b[1mClinical.",
    ),
    "the width": (
        lambda r: edit(r, "configs/train.json", lambda t: t.replace('"reduction_factor": 4', '"reduction_factor": 2')),
        '+    "reduction_factor": 2,',
    ),
    "a config more": (lambda r: (r / "configs" / "more.json").write_text("{}"), "+++ bundle/configs/more.json"),
    "code": (lambda r: (r / "json.py").write_text("print(1)"), "+print(1)"),
    "a hidden file": (lambda r: (r / ".env").write_text("A=1"), "+A=1"),
    "a config less": (lambda r: (r / "configs" / "evaluate.json").unlink(), "--- rebuilt/configs/evaluate.json"),
    "logging": (
        lambda r: edit(r, "configs/logging.conf", lambda t: t + "args=(open('\x1b[1m'),)\n"),
        r"+args=(open('\x1b[1m'),)",
    ),
    "a large file": (lambda r: (r / "a.json").write_text("[1]\n" * 10**6), "+4,000,000 bytes, not compared"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_difference_to_the_sources_is_shown_and_nothing_is_executed(change, tmp_path, capsys, monkeypatch):
    root = shipped(tmp_path)
    change, line = CHANGES[change]
    change(root)
    monkeypatch.setattr("monai.bundle.ConfigParser.get_parsed_content", lambda *_a, **_k: pytest.fail("executed"))
    monkeypatch.setattr("dcd_ext.bundles.verify.build_bundle", BUILT)
    assert dcd(["verify", str(root)]) == 1
    printed = capsys.readouterr().out
    assert line in printed and " skipped  properties   executes configs that are not" in printed
    shown = [x for x in printed.splitlines() if x.startswith("    ")]
    assert 0 < len(shown) <= 20 and all(x.isprintable() for x in printed.splitlines())


_SHIPPED = build_bundle(find_task("hippocampus"), "student")


def BUILT(task, role):
    """What the sources give; building the README executes our own configs, which the test forbids."""
    assert (task.name, role) == ("hippocampus.json", "student")
    return _SHIPPED


@pytest.mark.parametrize(
    ("made_from", "message"),
    [
        (None, "not a bundle of this project – "),
        ({"task": "hippocampus", "role": "../x"}, "not a bundle of this project – "),
        ({"task": "spine", "role": "student"}, "unknown task – "),
        ({"task": "configs/metadata.json", "role": "student"}, "unknown task – "),
    ],
)
def test_a_bundle_does_not_choose_its_sources(made_from, message, tmp_path, monkeypatch):
    root = shipped(tmp_path)
    edit(root, "configs/metadata.json", in_json(generated_from=made_from))
    monkeypatch.chdir(root)
    sources = verify(root)[0]
    assert sources.status == FAILED and message in sources.detail


def test_another_version_is_named(tmp_path):
    root = shipped(tmp_path)
    edit(root, "configs/metadata.json", in_json(version="9.9.9"))
    assert "another version of the sources – " in verify(root)[0].detail


def test_a_bundle_of_a_user_s_own_task(tmp_path, capsys):
    task = tmp_path / "crop.json"
    shutil.copy(ROOT / "bundle_src" / "tasks" / "hippocampus.json", task)
    assert dcd(["build", str(task), "--output", str(tmp_path)]) == 0
    root = tmp_path / "crop_segmentation_student"
    assert dcd(["verify", str(root)]) == 1 and "pass --task TASK.json" in capsys.readouterr().out
    assert dcd(["verify", str(root), "--task", str(task)]) == 0
    other = shutil.copy(task, tmp_path / "other.json")
    assert dcd(["verify", str(root), "--task", str(other)]) == 1 and "another task – " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_torchscript_that_reaches_files_is_not_loaded(unpacked, monkeypatch):
    class Reader(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("/etc/hostname", size=1)

    torch.jit.save(torch.jit.script(Reader()), unpacked / "models" / "model.ts")
    monkeypatch.setattr("dcd_ext.bundles.verify_network.load_net_with_metadata", lambda *_: pytest.fail("loaded"))
    result = one(unpacked, "torchscript")
    assert result.status == FAILED and "file operator" in result.detail and "torch.from_file" in result.detail
