"""Files: pickles in all their disguises, NumPy, TorchScript, ONNX, names that tools look for, damaged zips."""

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dcd_ext.audit.bundle import audit
from tests.audit.planting import Harmful, found, write

MAGIC = 0x1950A86A20F9469CFC6C
MODEL = "models/model.pt"


def test_torchscript_that_touches_files_and_its_configs(bundle, tmp_path):
    """A TorchScript archive runs no Python, but it has operators on files, and configs travel in it."""
    path = bundle / "models" / "model.ts"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("model/code/__torch__/net.py", 'def forward(self, x):\n  torch.save(x, "/tmp/x")\n')
        archive.writestr("model/extra/inference.json", json.dumps({"preprocessing": "$os.system('x')"}))
    assert {(f.file, f.key) for f in audit(bundle)} == {
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


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        content = pickle.dumps(Harmful(), 2)
        entry = tarfile.TarInfo("storages")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


OLD = pickle.dumps(MAGIC, 2)
PICKLES = {
    "protocol 0": pickle.dumps(Harmful(), 0),
    "protocol 1": pickle.dumps(Harmful(), 1),
    "old checkpoint, second pickle": OLD + pickle.dumps(Harmful(), 2),
    "old checkpoint, second pickle of protocol 0": OLD + pickle.dumps(Harmful(), 0),
    "old checkpoint, broken after the call": OLD + pickle.dumps(1001, 2) + pickle.dumps(Harmful(), 2)[:-1] + b"\xff",
    "second pickle": pickle.dumps({}, 2) + pickle.dumps(Harmful(), 2),
    "tar": _tar(),
    "a zip behind something else": b"\x80\x02}." + b"PK\x05\x06" + b"\0" * 18,
    "empty": b"",
}


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "bin", "ckpt", "npy", "npz", "ts"])
@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_disguised_pickle_is_found(content, suffix, bundle):
    write(bundle, f"models/x.{suffix}", content)
    assert found(bundle, f"models/x.{suffix}"), audit(bundle)


def test_names_before_a_broken_opcode_are_told(bundle):
    write(bundle, MODEL, PICKLES["old checkpoint, broken after the call"])
    assert any(".system" in f.what for f in found(bundle, MODEL))


def _objects(**options) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Harmful()], dtype=object), allow_pickle=True, **options)
    return stream.getvalue()


def test_numpy_files_of_objects(bundle):
    write(bundle, "models/a.npy", _objects().replace(b"'descr':", b'"descr":'))
    write(bundle, "models/b.npy", _objects(version=(3, 0)))
    with zipfile.ZipFile(bundle / "models" / "c.npz", "w") as archive:
        archive.writestr("array_without_suffix", _objects())
    np.savez(bundle / "models" / "honest.npz", x=np.zeros((2, 3)), y=np.arange(3))
    np.save(bundle / "models" / "honest.npy", np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]))
    files = {(f.file, f.key) for f in audit(bundle)}
    assert files == {("models/a.npy", ""), ("models/b.npy", ""), ("models/c.npz", "array_without_suffix")}


SCRIPTS = {
    "code/__torch__/a.py": "torch . save(x, 'y')",
    "code/__torch__/b.PY": "torch.save(x, 'y')",
    "code/__torch__/c.py": "torch.\n  save(x, 'y')",
    "code/__torch__/d.py": "a = '#'; torch.save(x, 'y')",
    "code/__torch__/e.py": "ops . evil . run(x)",
    "CODE/__torch__/f.py": "torch.from_file('y')",
}


@pytest.mark.parametrize(("record", "code"), SCRIPTS.items())
def test_operator_on_files_is_found_however_it_is_written(record, code, bundle):
    with zipfile.ZipFile(bundle / "models" / "model.ts", "w") as archive:
        archive.writestr("model/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr(f"model/{record}", code)
    assert [f for f in audit(bundle) if f.file == "models/model.ts" and f.key == record]


def test_a_zip_under_any_name(bundle):
    write(bundle, "models/x.dat", b"AAAA" + b"PK\x05\x06" + b"\0" * 18)
    assert found(bundle, "models/x.dat")


def test_records_that_differ_only_in_case(bundle):
    with zipfile.ZipFile(bundle / MODEL, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("model/DATA.PKL", pickle.dumps(Harmful(), protocol=2))
    assert {f.key for f in found(bundle, MODEL)} == {"", "DATA.PKL"}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_poses_as_torchscript(protocol, bundle):
    with zipfile.ZipFile(bundle / MODEL, "w") as archive:
        archive.writestr("model/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("model/data.pkl", pickle.dumps(Harmful(), protocol=protocol))
    assert found(bundle, MODEL, "data.pkl")


def test_a_member_too_large_to_be_read_is_not_read(bundle):
    with zipfile.ZipFile(bundle / MODEL, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\0" * (65 * 2**20))
    assert [f.what for f in found(bundle, MODEL)] == ["too large to be judged"]


def test_onnx_with_path_before_key(bundle):
    write(bundle, "models/m.onnx", b"\x08\x08" + b"\x12\x0c../../secret\x0a\x08location")
    assert found(bundle, "models/m.onnx", "external_data")


@pytest.mark.parametrize(
    "file",
    [".pdbrc", "matplotlibrc", ".git/config", "pyvenv.cfg", "sitecustomize.py", "configs/.pdbrc", ".vscode/tasks.txt"],
)
def test_files_that_tools_read_by_themselves(file, bundle):
    write(bundle, file, "x = 1\n")
    folder = file.split("/")[0]
    assert found(bundle, folder if folder in (".git", ".vscode") else file)


def _flip(content: bytearray, header: int) -> None:
    content[header] = 0


def _encrypt(content: bytearray, header: int) -> None:
    content[header + 6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1


def _unknown_method(content: bytearray, header: int) -> None:
    content[header + 8] = content[content.rfind(b"PK\x01\x02") + 10] = 99


@pytest.mark.parametrize("damage", [_flip, _encrypt, _unknown_method])
@pytest.mark.parametrize("file", [MODEL, "configs/zz.json", "docs/zz.txt"])
def test_damaged_entry_is_a_finding_and_no_traceback(damage, file, bundle, tmp_path):
    path: Path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(bundle / "LICENSE", f"{bundle.name}/LICENSE")
        archive.writestr(f"{bundle.name}/{file}", b"abcdefgh" * 10)
        header = archive.getinfo(f"{bundle.name}/{file}").header_offset
    content = bytearray(path.read_bytes())
    damage(content, header)
    path.write_bytes(content)
    assert found(path, file)
