"""Inventories: bundles of the zoo's kinds fit on one screen, hostile ones are listed without running or hanging."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch

from dcd_ext.bundles import inspect as module
from dcd_ext.bundles.inspect import inspect
from dcd_ext.bundles.inspect_code import kind_of_name, names_used
from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import escape
from tests.conftest import BUNDLES

INFERENCE = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "dataset_dir": "/workspace/data/spleen",
    "data": "$list(sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz'))))",
    "network_def": {"_target_": "UNet", "spatial_dims": 3},
    "network": "$@network_def.to(torch.device('cpu'))",
    "inferer": {"_target_": "monai.inferers.SlidingWindowInferer", "roi_size": [96, 96, 96]},
    "checkpoint": "$torch.load(@bundle_root + '/models/model.pt', weights_only=True)",
}
METADATA = {"version": "0.1.0", "name": "spleen", "references": ["https://example.org"]}
YAML = "imports:\n- $import os\nnetwork:\n  _target_: scripts.net.Net\nsteps: &s [$print(1)]\nagain: *s\n"
NET = (
    "import os\nfrom monai.networks.nets import UNet\n\nclass Net(UNet):\n    def forward(self, x):\n        return x\n"
)
LARGE = "large_files:\n- {{path: models/model.pt, url: https://example.org/m.pt{}}}\n"


class Shell:
    """Pickled, it is a call of ``os.system``."""

    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


def checkpoint(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def legacy(content):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def torchscript(function=None):
    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 + torch.relu(x)

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(function or Twice()), buffer, _extra_files={"metadata.json": "{}"})
    return buffer.getvalue()


def bundle(root, **files):
    """A bundle's folder; names of files are paths, content is text, bytes or JSON."""
    plain = {"configs/metadata.json": METADATA, "configs/inference.json": INFERENCE, "docs/README.md": "# x", **files}
    for name, content in plain.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


ZOO = {
    "plain": ({}, ["os.path.join 1", "glob.glob 1", "/workspace/data/spleen 1", "import os 1"]),
    "scripts": (
        {"scripts/__init__.py": "", "scripts/net.py": NET, "configs/x.json": {"_target_": "scripts.net.Net"}},
        ["scripts/net.py: imports monai, os; 1 functions, 1 classes", "scripts.net.Net 1"],
    ),
    "yaml": ({"configs/train.yaml": YAML}, ["scripts.net.Net 1", "print 1"]),
    "large files": ({"large_files.yml": LARGE.format("")}, ["models/model.pt from https://example.org/m.pt, WITHOUT"]),
    "large files, checked": (
        {"large_files.yml": LARGE.format(f", hash_type: sha256, hash_val: {'0' * 64}")},
        ["models/model.pt from https://example.org/m.pt, with SHA-256"],
    ),
    "MONAI Label": (
        {
            "configs/train.json": {
                "train": {"handlers": [{"_target_": "ValidationHandler"}]},
                "train#x": "%fragments::y",
            }
        },
        ["monai 3"],
    ),
    "weights": (
        {"models/model.pt": checkpoint({"w": torch.zeros(2)})},
        ["model.pt: checkpoint; names that weights_only=True refuses: none"],
    ),
    "weights of before 1.6": ({"models/model.pt": legacy({"w": torch.zeros(2)})}, ["torch._utils._rebuild_tensor_v2"]),
    "TorchScript": (
        {"models/model.ts": torchscript},
        ["model.ts: TorchScript with 3 kinds of operators; those that reach files: none; extra files: metadata.json"],
    ),
    "nested configs": (
        {f"configs/{i}/{j}.json": {"a": [{"b": {"_target_": "x.Y", "c": "$len(@a)"}}]} for i in "abc" for j in "de"},
        ["x.Y 6", "builtins and methods: ", "len 6"],
    ),
    "logging": (
        {"configs/logging.conf": "[handler_h]\nclass=os.popen\nargs=(sys.stdout, open('x'))\n"},
        ["os.popen 1", "sensitive names: open 1"],
    ),
    "tracking": ({"configs/t.json": {"tracking_uri": "https://log.example.org/x"}}, ["https://log.example.org 1"]),
    "arrays": ({"data/a.npy": b""}, ["other files"]),
    "many of everything": (
        {
            **{f"scripts/s{i}.py": f"import m{i}" for i in range(60)},
            **{f"configs/c{i}.json": {"_target_": f"m{i}.C{i}", "e": f"$m{i}.f(@x)"} for i in range(300)},
            **{f"models/m{i}.pt": pickle.dumps([i]) for i in range(20)},
            **{f"data/d{i}.{'x' * (i % 40)}": "x" for i in range(200)},
            **{f"tools{i}/setup.py": "" for i in range(20)},
            "large_files.yml": {"large_files": [{"path": f"p{i}", "url": f"https://h{i}"} for i in range(30)]},
        },
        ["… 71 more (--all)", "NOT READ: none"],
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", ZOO)
def test_bundles_as_the_zoo_has_them(kind, zipped, tmp_path):
    files, expected = ZOO[kind]
    root = bundle(tmp_path / "spleen", **{k: v() if callable(v) else v for k, v in files.items()})
    path = root
    if zipped:
        path = tmp_path / "spleen.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                archive.write(file, f"spleen/{file.relative_to(root)}")
    lines = inspect(path)
    assert len(lines) <= 40 and lines[0].startswith("spleen: ")
    text = "\n".join(lines)
    assert all(part in text for part in expected), text
    assert "not a verdict" in lines[-3] and "--network none" in lines[-1] and str(path) in lines[-1]
    assert kind == "arrays" or "NOT READ: none" in text


@pytest.mark.parametrize("name", sorted(p.name for p in BUNDLES.iterdir()))
def test_our_own_bundles_are_read_in_full(name):
    lines = inspect(BUNDLES / name)
    assert len(lines) <= 40 and "NOT READ: none" in lines
    # nothing but what inference imports; verify compares it with the package's own files
    python = [line.split(":")[0].strip() for line in inspect(BUNDLES / name, everything=True) if "functions," in line]
    assert len(python) == 16 and all(file.startswith("scripts/dcd_inference/") for file in python)


def pickle_that_repeats():
    """58 kB that would build 2 ** 58,000 elements."""
    return b"\x80\x02(lp0\n" + b"(h\x00h\x00tp0\n" * 6000 + b"."


HOSTILE = {
    "system in a checkpoint": ({"models/model.pt": checkpoint({"a": Shell()})}, "refuses: posix.system"),
    "system in a pickle": ({"models/model": pickle.dumps(Shell())}, "names it looks up: posix.system"),
    "system in an old checkpoint": ({"models/model.pt": legacy({"a": Shell()})}, "posix.system"),
    "names from the memo": (
        {"models/a.pkl": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x01x\x85R."},
        "names it looks up: posix.system",
    ),
    "protocol 0": ({"models/a.pkl": b"cposix\nsystem\n(S'x'\ntR."}, "names it looks up: posix.system"),
    "objects in an array": ({"a.npy": lambda: npy(np.array([{}], object))}, "array of objects: a pickle"),
    "config named .json": ({".json": {"x": "$os.system('x')"}}, "os.system 1"),
    "config without its ending": ({"configs/train": {"x": "$os.system('x')"}}, "os.system 1"),
    "pickle without its ending": ({"models/x.nii": pickle.dumps(Shell())}, "posix.system"),
    "coding cookie": ({"scripts/a.py": b"# coding: utf-7\n+AGUAdgBhAGw-('1')\n"}, "uses eval; in the encoding utf-7"),
    "unknown coding": ({"scripts/a.py": b"# coding: x\n"}, "cannot be read (SyntaxError): scripts/a.py"),
    "function passed on": ({"configs/a.json": {"x": "$list(map(os.system, ['x']))"}}, "os.system 1"),
    "attributes": ({"configs/a.json": {"x": "$().__class__.__base__.__subclasses__()"}}, ".__class__.__base__.__sub"),
    "a reference called": ({"configs/a.json": {"x": "$@f('x')"}}, "sensitive names: (a value)() 1"),
    "import under another name": ({"configs/a.json": {"x": "$from os import system as list"}}, "system as list 1"),
    "a module through torch": ({"configs/a.json": {"_target_": "torch.os.system"}}, "torch.os.system 1"),
    "a class through MONAI": ({"configs/a.json": {"_target_": "monai.apps.utils.subprocess.Popen"}}, "ss.Popen 1"),
    "a builtin as a class": ({"configs/a.json": {"_target_": "exec"}}, "exec 1"),
    "a planted repository": ({".git/config": "[core]\nfsmonitor = touch /tmp/never"}, "automatically: .git/config"),
    "a module's name": ({"json.py": "print(1)"}, "named like a module"),
    "a compiled module": ({"scripts/x.so": b"\x7fELF"}, "automatically: scripts/x.so"),
    "a list of large files": ({"large_files.json": {"large_files": [], "x": "$os.system('x')"}}, "os.system 1"),
    "a script": ({"run": "#!/bin/sh\n"}, "automatically: run"),
    "escapes": ({"configs/\x1b[2J\u202e.json": {"_target_": "a\x1b]0;x\x07\nb"}}, r"a\x1b]0;x\x07\nb 1"),
    "huge expression": ({"configs/a.json": {"x": "$" + " " * 200_000}}, "too large or too many: configs/a.json"),
    "many expressions": ({"configs/a.json": ["$a"] * 300_000}, "too large or too many: configs/a.json"),
    "deep expression": ({"configs/a.json": {"x": "$" + "-" * 9_999}}, "expressions that are no Python: configs/a.json"),
    "spaces in TorchScript": ({"models/model.ts": b" " * 200_000}, "cannot be read"),
    "deep JSON": ({"configs/a.json": "[" * 2_000_000}, "cannot be read (RecursionError): configs/a.json"),
    "deep YAML": ({"configs/a.yml": "[" * 100_000}, "cannot be read (RecursionError): configs/a.yml"),
    "large YAML": ({"configs/a.yml": "- a\n" * 1_000_000}, "too large: configs/a.yml"),
    "YAML that grows": (
        {"a.yml": "- &a0 {b: 1}\n" + "".join(f"- &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(90))},
        "NOT READ: none",
    ),
    "merge keys that hide one another": (
        {"a.yml": "<<: {x: $os.system('x')}\n<<: {y: 1}\n"},
        "cannot be read (ValueError): a.yml",
    ),
    "YAML within itself": ({"a.yml": "&a [*a]"}, "cannot be read (ConstructorError): a.yml"),
    "YAML that calls": ({"a.yml": "!!python/object/apply:os.system [x]"}, "names in 5 $ expressions"),
    "pickle that grows": ({"a.pkl": pickle_that_repeats()}, "names it looks up: none"),
    "large file of code": ({"scripts/a.py": "f()\n" * 100_000}, "too large: scripts/a.py"),
    "not UTF-8": ({"configs/a.json": b"\xff\xfe{"}, "cannot be read (UnicodeDecodeError): configs/a.json"),
}


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_listed_and_not_run(kind, tmp_path, monkeypatch, capsys):
    def never(*_args, **_kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess.Popen, "__init__", never)
    monkeypatch.setattr(os, "system", never)
    monkeypatch.chdir(tmp_path)
    files, expected = HOSTILE[kind]
    bundle(tmp_path / "b", **{k: v() if callable(v) else v for k, v in files.items()})
    modules, start = set(sys.modules), time.process_time()
    assert dcd(["inspect", "b"]) == 0
    printed = capsys.readouterr().out
    assert time.process_time() - start < 15 and not {m for m in set(sys.modules) - modules if m.startswith("scripts.a")}
    assert expected in printed and len(printed.splitlines()) <= 40
    assert all(line.isprintable() for line in printed.splitlines())


def test_a_zip_entry_without_a_name(tmp_path, capsys):
    """Its one letter counted as the field that follows: zipfile's own question for a folder fails there."""
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("x", b"content")
    content = (tmp_path / "bundle.zip").read_bytes()
    entry = content.index(b"PK\1\2")
    (tmp_path / "bundle.zip").write_bytes(content[: entry + 28] + struct.pack("<HH", 0, 1) + content[entry + 32 :])
    assert dcd(["inspect", str(tmp_path / "bundle.zip")]) == 0
    assert "no name" in capsys.readouterr().out
    assert dcd(["verify", str(tmp_path / "bundle.zip")]) == 1
    assert "unsafe paths – " in capsys.readouterr().err


def test_paths_that_lead_out(tmp_path):
    root = bundle(tmp_path / "b")
    (root / "configs" / "link.json").symlink_to("/etc/hostname")
    (root / "up").symlink_to(tmp_path)
    text = "\n".join(inspect(root, everything=True))
    assert "configs/link.json: a link that leads out of the bundle, to /etc/hostname" in text
    assert "up: a link that leads out of the bundle" in text
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("b/../../evil", "x")
        archive.writestr("/absolute", "x")
        archive.writestr("C:drive", "x")
        second = zipfile.ZipInfo("b/harmless.txt")
        field = b"\x01" + struct.pack("<I", 0) + b"b/configs/train.json"
        second.extra = struct.pack("<HH", 0x7075, len(field)) + field
        archive.writestr(second, "{}")
        archive.writestr("b/bomb.json", bytes(2**24), zipfile.ZIP_DEFLATED)
    text = "\n".join(inspect(tmp_path / "b.zip", everything=True))
    for name in ("/absolute", "C:drive"):
        assert f"{name}: path traversal: absolute name" in text
    for part in ("'..' in the name", "unicode-path field", "too large: b/bomb.json", "200 times"):
        assert part in text


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    """One that may only be entered: its files can be opened by whoever knows their names."""
    root, scandir = bundle(tmp_path / "b", **{"hidden/a.json": {}}), os.scandir

    def refuse(path):
        if os.fspath(path).endswith("hidden"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "hidden: a folder that cannot be listed; what is in it may still run" in "\n".join(inspect(root))


def test_time_and_number_of_files_are_bounded(tmp_path, monkeypatch):
    root = bundle(tmp_path / "b", **{f"configs/{i}.json": {} for i in range(9)})
    assert "no time left: configs/0.json, " in "\n".join(inspect(root, seconds=0))
    monkeypatch.setattr(module, "_MAX_FILES", 10)
    assert "NOT READ: no time left: configs/metadata.json, docs/README.md" in "\n".join(inspect(root))


def test_no_bundle_is_one_line(tmp_path, capsys):
    assert dcd(["inspect", str(tmp_path / "nowhere.zip")]) == 1
    assert capsys.readouterr().err.startswith("error: not a bundle – ")


def test_names_are_those_python_would_look_up():
    names = names_used("[f(p) for p in @a.parts() if p.ok and x.y['k'](1)](lambda q: q.z)")
    assert names == {"f": 1, ".parts": 1, ".ok": 1, "x.y": 1, ".z": 1, "(a value)()": 2}
    kinds = {"torch.load": "torch", "torch.sys.exit": "other modules", ".a.b": "builtins and methods"}
    kinds |= {"len": "builtins and methods", "eval": "sensitive names", "x.__dict__": "sensitive names"}
    assert {name: kind_of_name(name) for name in kinds} == kinds
    assert escape("a\x1b[1m\u202eé\udc80\n") == r"a\x1b[1m\u202eé\udc80\n"


def test_the_container_command_takes_nothing_from_the_bundle(tmp_path):
    path = tmp_path / "it's $(x).zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("$(touch mark)/configs/inference.json", "{}")
    line = inspect(path)[-1]
    assert "mark" not in line and f"src={path},dst=/bundle.zip,readonly" in line.replace("'\"'\"'", "'")
    assert f"type=bind,src={path},dst=/bundle.zip,readonly" in shlex.split(line)
