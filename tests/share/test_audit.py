"""The audit: what is planted is found, with its file and key, and nothing of it runs; what is ours passes."""

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from dcd_ext.share.audit import audit
from scripts import audit_bundle
from tests.conftest import BUNDLES, read_json

INFERENCE = "configs/inference.json"


def edit(bundle: Path, file: str = INFERENCE, **values) -> None:
    path = bundle / file
    path.write_text(json.dumps({**read_json(path), **values}), "utf-8")


class Harmful:
    """Pickles as a call of ``os.system``."""

    def __reduce__(self):
        return os.system, ("touch executed",)


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


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('x')",
        "$().__class__.__base__.__subclasses__()",
        "$monai.data.utils.os.system('x')",
        "$monai.utils.misc.run_cmd(['x'])",
        "$torch.load('x')",
        "$torch.hub.load('a', 'b')",
        "$numpy.load('x', allow_pickle=True)",
        "$monai.bundle.run(config_file='x')",
        "$getattr(monai, 'bundle')",
        "$map(eval, ['1'])",
        "$(lambda f: f('1'))(exec)",
        "$[x for x in (open('a', 'w'),)]",
        "$sys.modules['os'].system('x')",
        "$@evaluator.os.system('x')",
        "$@network.__init__.__globals__",
        "$pathlib.Path('x').write_text('y')",
        "$pathlib.Path('x').replace('y')",
        "$map(pathlib.Path.unlink, @files)",
        "$os.environ.update({'LD_PRELOAD': 'x'})",
        "$import subprocess",
        "$from os import system",
        "$import os as glob",
        "$from monai.utils.misc import run_cmd as first",
        "$import os; os.system('x')",
        "$(x := os)",
        "$9 ** 9 ** 9",
        "$f'{os.system(1)}'",
        "$vars(os)",
        "  $os.system('x')",
        "$\tos.system('x')",
        "$[os for os in [1]]",
        "$" + "(" * 240 + "1" + ")" * 240,
    ],
)
def test_expression_is_refused(expression, bundle):
    edit(bundle, planted=expression)
    assert [f for f in audit(bundle) if f.key == "planted"]


@pytest.mark.parametrize(
    "expression",
    [
        "$max(f // 2 for f in @features)",
        "$os.path.join(@bundle_root, 'models', 'model.pt')",
        "$torch.nn.Conv3d",
        "$import numpy as np",
        "$from monai.transforms import Compose",
        "$monai.utils.enums.InterpolateMode.LINEAR",
        "$@train#trainer.run()",
        "$os.environ['LOCAL_RANK']",
        "$lambda x: [xx['image'].meta for xx in x]",
        "$pathlib.Path(@dataset_dir).exists()",
    ],
)
def test_plain_expression_passes(expression, bundle):
    edit(bundle, planted=expression)
    assert audit(bundle) == []


@pytest.mark.parametrize(
    "target", ["run_cmd", "first", "os.system", "monai.data.utils.os.system", "$os.system", "torch.load", "eval"]
)
def test_target_is_refused(target, bundle):
    edit(bundle, handlers=[{"_target_": target}])
    assert [f for f in audit(bundle) if f.key == "handlers::0::_target_"]


@pytest.mark.parametrize("target", ["Compose", "monai.transforms.LoadImaged", "LoadImageD", "torch.optim.AdamW"])
def test_class_of_the_field_passes(target, bundle):
    edit(bundle, handlers=[{"_target_": target}])
    assert audit(bundle) == []


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


def test_torchscript_that_touches_files_and_its_configs(bundle, tmp_path):
    """A TorchScript archive runs no Python, but it has operators on files, and configs travel in it."""
    path = bundle / "models" / "model.ts"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("model/code/__torch__/net.py", 'def forward(self, x):\n  torch.save(x, "/tmp/x")\n')
        archive.writestr("model/extra/inference.json", json.dumps({"preprocessing": "$os.system('x')"}))
    found = audit(bundle)
    assert {(f.file, f.key) for f in found} == {
        ("models/model.ts", "code/__torch__/net.py"),
        ("models/model.ts/extra/inference.json", ""),
        ("models/model.ts/extra/inference.json", "preprocessing"),
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_bare_and_old_pickles(protocol, bundle):
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps(Harmful(), protocol=protocol))
    assert [f for f in audit(bundle) if f.file == "models/model.pt"]
    torch.save({"weight": torch.zeros(3)}, bundle / "models" / "model.pt", _use_new_zipfile_serialization=False)
    assert audit(bundle) == []


def test_onnx_that_reads_elsewhere(bundle):
    location = b"\x0a\x08location\x12\x0c../../secret"
    (bundle / "models" / "model.onnx").write_bytes(b"\x08\x08" + location)
    (finding,) = audit(bundle)
    assert (finding.file, finding.key) == ("models/model.onnx", "external_data") and "../../secret" in finding.what


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
