"""Packing: what goes into the zip, and what is refused."""

import hashlib
import json
import shutil
import zipfile

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles.card import packed_readme, readme_commands
from dcd_ext.bundles.contents import open_contents
from dcd_ext.bundles.pack import pack
from dcd_ext.bundles.sums import check_sums, check_zip, write_sums, write_zip
from dcd_ext.bundles.verify_text import SCHEMA
from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_text
from tests.bundles.conftest import NAME
from tests.conftest import BUNDLES, read_json


@pytest.fixture(scope="module")
def content(packed):
    with zipfile.ZipFile(packed) as archive:
        return {n.removeprefix(f"{NAME}/"): archive.read(n) for n in archive.namelist()}


def test_layout_of_the_model_zoo(packed, content):
    assert packed.name == f"{NAME}_v0.1.0.zip"
    expected = {f"configs/{p.name}" for p in (BUNDLES / NAME / "configs").iterdir()}
    expected |= {str(p.relative_to(BUNDLES / NAME)) for p in (BUNDLES / NAME / "scripts").rglob("*.py")}
    expected |= {"LICENSE", "README.md", "SHA256SUMS", "docs/README.md", "docs/data_license.txt"}
    assert set(content) == expected | {"models/model.pt", "models/model.ts"}


def test_sums_are_those_of_the_files(content):
    lines = dict(reversed(line.split("  ")) for line in content["SHA256SUMS"].decode().splitlines())
    assert lines.keys() == content.keys() - {"SHA256SUMS"}
    assert all(hashlib.sha256(content[file]).hexdigest() == value for file, value in lines.items())


def test_card_claims_nothing_unmeasured_and_names_exact_versions(content):
    text = content["README.md"].decode()
    metadata = json.loads(content["configs/metadata.json"])
    assert text.startswith("---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n# ")
    assert "nothing is claimed" in text and metadata["eval_metrics"] == {}
    assert metadata["pytorch_version"] == torch.__version__.partition("+")[0]
    assert metadata["monai_version"] == monai.__version__
    install = next(c for c in readme_commands(text) if "pip install" in c)
    packages = {"monai": monai.__version__, **metadata["required_packages_version"]}
    assert all(f"{name}=={version}" in install for name, version in packages.items())
    assert "bundles/" not in "".join(readme_commands(text))


def test_the_card_of_a_distilled_student_says_how_to_train_it():
    name = "brats24_segmentation_student_dcd"
    text = (BUNDLES / name / "docs" / "README.md").read_text("utf-8")
    card = packed_readme(text, name, read_json(BUNDLES / name / "configs" / "metadata.json"), 7, [1, 2])
    assert "7 parameters, encoder widths 1, 2" in card and "package `dcd_ext`" in card
    assert "../brats24_segmentation_teacher/models/model.pt" in card and "--teacher_ckpt" in card
    assert sum("monai.bundle run" in c for c in readme_commands(card)) == 5


def record(checkpoint, **more):
    values = {"dice": 0.8, "hd95_mm": 1.5, "nsd": 0.9}
    means = {m: {"mean": v, "sem": None} for m, v in values.items()}
    names = ["Anterior", "Posterior"]
    case = {"classes": {name: {"status": "scored", **values} for name in names}}
    return {
        **{"format": "dcd-metrics-1", "class_names": names, "parameters": 1, "seconds_per_case": 1.0},
        "weights_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        **{"fold": 0, "cases": {"a": case, "b": case}, "nsd_tolerance_mm": 1.0, "dataset_dir": "/home/x/data"},
        **{"summary": {"Anterior": means, "Posterior": means, "mean": means}, **more},
    }


@pytest.mark.slow
def test_measured_scores_and_another_width(small, tmp_path):
    """Weights of another reduction factor, nested as a training checkpoint is, with their evaluation record."""
    config = {**read_json(small / "configs" / "inference.json"), "reduction_factor": 1, "features": [8, 8, 8, 16]}
    for name in ("train", "inference"):
        changed = {**read_json(small / "configs" / f"{name}.json"), "features": [8, 8, 8, 16]}
        (tmp_path / NAME / "configs").mkdir(parents=True, exist_ok=True)
        (tmp_path / NAME / "configs" / f"{name}.json").write_text(json.dumps(changed))
    for file in ("LICENSE", "docs/README.md", "configs/metadata.json"):
        (tmp_path / NAME / file).parent.mkdir(exist_ok=True)
        (tmp_path / NAME / file).write_bytes((small / file).read_bytes())
    network = ConfigParser(config).get_parsed_content("network_def")
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({"model": network.state_dict()}, checkpoint)
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps(record(checkpoint)))
    arguments = [str(tmp_path / NAME), "--checkpoint", str(checkpoint), "--metrics", str(metrics)]
    arguments += ["--reduction_factor", "1", "--output", str(tmp_path / "dist")]
    assert dcd(["pack", *arguments]) == 0
    (path,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    got = tmp_path / "out" / NAME
    assert read_json(got / "configs" / "inference.json")["reduction_factor"] == 1
    assert read_json(got / "configs" / "metadata.json")["eval_metrics"] == {
        **{"fold": 0, "cases": 2, "nsd_tolerance_mm": 1.0},
        **{
            m: dict.fromkeys(("Anterior", "Posterior", "mean"), v)
            for m, v in (("dice", 0.8), ("hd95_mm", 1.5), ("nsd", 0.9))
        },
    }
    assert "| Anterior | 0.8000 | 1.5000 | 0.9000 |" in (got / "README.md").read_text()
    assert "encoder widths 8, 8, 8, 16" in (got / "README.md").read_text()
    state = torch.load(got / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert "/home/x" not in (got / "configs" / "metadata.json").read_text()


@pytest.mark.parametrize("measured_with", ["0" * 64, None])
def test_scores_of_other_or_unknown_weights_are_refused(measured_with, small, tmp_path, capsys):
    metrics = tmp_path / "metrics.json"
    content = record(small / "models" / "model.pt", weights_sha256=measured_with)
    if not measured_with:
        del content["weights_sha256"]
    metrics.write_text(json.dumps(content))
    arguments = [str(small), "--metrics", str(metrics), "--output", str(tmp_path / "dist")]
    assert dcd(["pack", *arguments]) == 1
    assert "metrics of other weights – " in capsys.readouterr().err
    assert list((tmp_path / "dist").iterdir()) == []


def test_weights_that_do_not_fit_are_refused(small, tmp_path, capsys):
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    arguments = [str(small), "--checkpoint", str(tmp_path / "other.pt"), "--output", str(tmp_path / "dist")]
    assert dcd(["pack", *arguments]) == 1
    assert "weights do not fit the network" in capsys.readouterr().err
    assert dcd(["pack", str(tmp_path), "--output", str(tmp_path / "dist")]) == 1
    assert "not a bundle – " in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value, small, tmp_path, capsys):
    state = torch.load(small / "models" / "model.pt", weights_only=True)
    state[list(state)[-1]][0] = value
    torch.save(state, tmp_path / "diverged.pt")
    assert dcd(["pack", str(small), "--checkpoint", str(tmp_path / "diverged.pt"), "--output", str(tmp_path)]) == 1
    assert f"weights are not finite – {tmp_path}/diverged.pt, key {list(state)[-1]}" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.zip"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "unreadable description of an exported network – "),
        ('{"name": "x", "int8": []}', "pipeline.json – expected 'channels', found none"),
        (
            '{"name": "x", "channels": ["a"], "classes": {"0": "b"}, "steps": [], "network": "../model.pt", '
            '"window": {"size": [8, 8, 8], "overlap": 0.5}}',
            "pipeline.json, network – expected the name of a file beside it, found '../model.pt'",
        ),
        (
            '{"name": "x", "channels": ["a"], "classes": {"0": "b"}, "steps": [], "network": "network_int8.xml", '
            '"window": {"size": [8, 8, 8], "overlap": 0.5}}',
            "no exported network – ",
        ),
    ],
)
def test_a_damaged_int8_network_is_one_line(content, message, small, tmp_path, capsys):
    root = shutil.copytree(small, tmp_path / small.name)
    (root / "models" / "int8").mkdir()
    (root / "models" / "int8" / "pipeline.json").write_text(content)
    assert dcd(["pack", str(root), "--output", str(tmp_path / "dist")]) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: ") and message in printed and "export it again" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reduction_factor", "0"], "argument --reduction_factor: expected a whole number above 0, found '0'"),
        (["--output", "{small}/LICENSE"], "cannot create the output folder – "),
        (["--checkpoint", "nowhere", "--metrics", "{small}/LICENSE"], "weights not found – nowhere – expected a check"),
    ],
)
def test_wrong_options_end_with_one_line(options, message, small, capsys):
    assert dcd(["pack", str(small), *(o.format(small=small) for o in options)]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_address_without_encryption_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="address of the weights – ftp://x – expected https"):
        pack(small, small / "models" / "model.pt", tmp_path, large_files_url="ftp://x")


def test_zip_depends_on_content_alone(tmp_path):
    """Other times, permissions and order of creation give the same bytes; other content does not."""
    archives = []
    for i, names in enumerate((["b", "a/c"], ["a/c", "b"], ["a/c", "b"])):
        root = tmp_path / str(i) / "bundle"
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name * (1 + i // 2))
            (root / name).chmod(0o600 + i)
        write_sums(root)
        write_zip(root, tmp_path / f"{i}.zip")
        archives.append((tmp_path / f"{i}.zip").read_bytes())
    assert archives[0] == archives[1] != archives[2]
    assert check_sums(open_contents(tmp_path / "0.zip")) == 2


def test_no_byte_of_a_zip_can_be_flipped_unnoticed(tmp_path):
    """Not in a file, which has its checksum, nor in times, permissions and lengths, which have none."""
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "a").write_text("content of a")
    (root / "b").write_text("content of b")
    write_sums(root)
    write_zip(root, tmp_path / "bundle.zip")
    data, broken = (tmp_path / "bundle.zip").read_bytes(), tmp_path / "broken.zip"
    check_zip(root, tmp_path / "bundle.zip")
    messages = []
    for position in range(len(data)):
        broken.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(UserError) as error:
            contents = open_contents(broken)
            if contents.problems:
                raise UserError("unsafe paths", broken, "files", contents.problems[0], "do not unpack it")
            check_sums(contents)
            check_zip(root, broken)
        messages.append(str(error.value))
    assert any(m.startswith(f"zip differs from what was packed – {broken} – ") for m in messages)
    assert any(m.startswith("damaged file – b – ") for m in messages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "b").unlink(), "missing file – b – "),
        (lambda r: (r / "new").write_text("x"), "file without a checksum – new – "),
        (lambda r: write_text("x", r / "models" / "new.pt"), "file without a checksum – models/new.pt – "),
        (lambda r: (r / "b").write_text("x"), "file differs from what was packed – b – "),
        (lambda r: (r / "SHA256SUMS").write_text("x"), "damaged file – SHA256SUMS – "),
        (lambda r: (r / "SHA256SUMS").unlink(), "no checksums – SHA256SUMS – "),
    ],
)
def test_any_difference_to_the_sums_is_told(change, message, tmp_path):
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "b").write_text("b")
    write_sums(root)
    assert check_sums(open_contents(root)) == 1
    change(root)
    with pytest.raises(ValueError, match=message):
        check_sums(open_contents(root))


def test_monais_own_checks_of_the_packed_bundle(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    configs = tmp_path / NAME / "configs"
    meta = str(configs / "metadata.json")
    schema = {"filepath": str(SCHEMA), "hash_val": sha256(SCHEMA), "hash_type": "sha256"}
    monai.bundle.verify_metadata(meta_file=meta, **schema)
    monai.bundle.verify_net_in_out(
        net_id="network_def", meta_file=meta, config_file=str(configs / "inference.json"), device="cpu"
    )
    metadata = read_json(configs / "metadata.json")
    del metadata["task"]
    (configs / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="'task' is a required property"):
        monai.bundle.verify_metadata(meta_file=meta, **schema)
