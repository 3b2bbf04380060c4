"""The audit: what is planted is found, with its file and key, and nothing of it runs; what is ours passes."""

import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from dcd_ext.audit.bundle import audit
from scripts import audit_bundle
from tests.audit.planting import INFERENCE, Harmful, edit
from tests.conftest import BUNDLES


def os_system(bundle):
    edit(bundle, output_dir="$os.system('touch executed')")
    return bundle, INFERENCE, "output_dir", "os.system"


def subprocess_target(bundle):
    edit(bundle, handlers=[{"_target_": "subprocess.run", "args": ["touch", "executed"]}])
    return bundle, INFERENCE, "handlers::0::_target_", "subprocess.run"


def logging_class(bundle):
    path = bundle / "configs" / "logging.conf"
    path.write_text(path.read_text().replace("class=StreamHandler", "class=os.system"))
    return bundle, "configs/logging.conf", "[handler_consoleHandler] class", "os.system"


def builtins_eval(bundle):
    edit(bundle, initialize=[{"_target_": "builtins.eval", "source": "1"}])
    return bundle, INFERENCE, "initialize::0::_target_", "builtins.eval"


def pickle_with_reduce(bundle):
    torch.save({"weight": torch.zeros(1), "more": Harmful()}, bundle / "models" / "model.pt")
    return bundle, "models/model.pt", "data.pkl", ".system, more than weights_only=True allows"


def zip_of(bundle: Path, *extra: tuple[zipfile.ZipInfo, str]) -> Path:
    path = Path(shutil.make_archive(str(bundle), "zip", bundle.parent, bundle.name))
    with zipfile.ZipFile(path, "a") as archive:
        for entry, content in extra:
            archive.writestr(entry, content)
    return path


def traversing_entry(bundle):
    name = f"{bundle.name}/../../outside.txt"
    return zip_of(bundle, (zipfile.ZipInfo(name), "x")), "../../outside.txt", "", "path traversal"


def absolute_symlink(bundle):
    (bundle / "models" / "model.ts").symlink_to("/etc/passwd")
    return bundle, "models/model.ts", "", "a link that leads out of the bundle, to /etc/passwd"


def import_side_effect(bundle):
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("import os\n\nos.system('touch executed')\n")
    edit(bundle, imports=["$import scripts"])
    return bundle, "scripts/__init__.py", "line 3", "runs at import"


def hidden_second_config(bundle):
    shutil.copy(bundle / INFERENCE, bundle / "configs" / "inference.yaml")
    return bundle, "configs/inference.yaml", "", "second config of the same name as configs/inference.json"


def oversized_expression(bundle):
    edit(bundle, output_dir="$" + " + ".join(["@bundle_root"] * 100))
    return bundle, INFERENCE, "output_dir", "oversized expression"


TEN = [
    *(os_system, subprocess_target, logging_class, builtins_eval, pickle_with_reduce, traversing_entry),
    *(absolute_symlink, import_side_effect, hidden_second_config, oversized_expression),
]


@pytest.mark.parametrize("plant", TEN)
def test_planted_attack_is_found_with_file_and_key_and_does_not_run(plant, bundle, monkeypatch, capsys):
    monkeypatch.chdir(bundle.parent)
    assert audit(bundle) == []
    path, file, key, what = plant(bundle)
    found = audit(path)
    assert [f for f in found if f.file == file and f.key == key and what in f.what], found
    assert audit_bundle.main([str(path)]) == 1
    assert file in capsys.readouterr().out
    assert not list(Path.cwd().rglob("executed"))


@pytest.mark.parametrize("name", sorted(p.name for p in BUNDLES.iterdir()))
def test_our_bundles_pass(name):
    assert audit(BUNDLES / name) == []


def test_the_config_of_a_tracked_run_and_a_hubs_records_are_no_second_configs(bundle):
    (bundle / "eval").mkdir()
    shutil.copy(bundle / INFERENCE, bundle / "eval" / "config_20260101_000000.json")
    (bundle / ".cache" / "huggingface").mkdir(parents=True)
    (bundle / ".cache" / "huggingface" / "tree.json").write_text('{"files": []}')
    assert audit(bundle) == []
    shutil.copy(bundle / INFERENCE, bundle / ".cache" / "huggingface" / "tree.json")
    assert [f.file for f in audit(bundle)] == [".cache/huggingface/tree.json"] * 2


def test_further_places(bundle):
    """Shadowing modules, switches, macros, debuggers, downloads, JSON doubles, compiled code, links in zips."""
    (bundle / "glob.py").write_text("x = 1\n")
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "a.pyc").write_bytes(b"\0")
    (bundle / "more.json").write_text('{"handler": {"_target_": "Compose"}}')
    edit(bundle, a={"_target_": "LoadImaged", "allow_pickle": True}, b="%../../x.json::y")
    edit(bundle, "configs/train.json", c={"_target_": "Compose", "_mode_": "debug"})
    large = '{"large_files": [{"path": "../x", "url": "https://h/x"}]}'
    (bundle / "large_files.json").write_text(large)
    (bundle / "configs" / "evaluate.json").write_text('{"run": [], "run": ["$1"]}')
    link = zipfile.ZipInfo(f"{bundle.name}/models/link.pt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    found = {f.file: "" for f in audit(zip_of(bundle, (link, "/etc/passwd")))}
    assert set(found) == {
        *("glob.py", "scripts/a.pyc", "more.json", INFERENCE, "configs/train.json", "large_files.json"),
        *("configs/evaluate.json", "models/link.pt"),
    }
    texts = "\n".join(map(str, audit(bundle)))
    for what in ("replaces the module", "allow_pickle", "outside the bundle", "debugger", "without a SHA-256"):
        assert what in texts
    assert "path traversal: ../x" in texts and "key given twice" in texts and "outside of configs" in texts


def test_neither_folder_nor_zip(tmp_path, capsys):
    assert audit_bundle.main([str(tmp_path / "nothing")]) == 2
    assert "not a bundle – " in capsys.readouterr().err


def test_nothing_heavy_is_imported_by_the_audit():
    """Not importing what a bundle names includes not importing torch or MONAI."""
    bundle = str(BUNDLES / "brats24_segmentation_student")
    code = f"import sys\nfrom scripts.audit_bundle import main\nmain([{bundle!r}])\n"
    code += "assert not {'torch', 'monai', 'numpy'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=BUNDLES.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
