"""What all commands of ``dcd`` have in common."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shutil
import subprocess
import sys

import pytest

from dcd_ext.commands import prepare
from dcd_ext.commands.main import main as dcd
from dcd_ext.commands.main import summaries
from tests.conftest import BUNDLES

COMMANDS = list(summaries())


def test_the_overview_has_a_line_per_command_and_starts_without_torch() -> None:
    code = (
        "import sys; from dcd_ext.commands.main import main; code = main(['--help'])\n"
        "sys.exit(code or [name for name in ('torch', 'monai', 'numpy') if name in sys.modules] or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.startswith("  ")}
    assert set(lines) == set(COMMANDS) >= {"prepare", "check", "build", "compare", "calibrate", "methods", "benchmark"}
    assert all(len(line.split()) > 4 for line in lines.values())


def test_python_m_is_the_same_command() -> None:
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-m", "dcd_ext", "studies", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stdout.startswith("usage: dcd studies [-h] --output OUTPUT DATALIST")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_example_and_underscores(name: str, capsys) -> None:
    assert dcd([name, "--help"]) == 0
    text = capsys.readouterr().out
    module = importlib.import_module(f"dcd_ext.commands.{name.replace('-', '_')}")
    assert summaries()[name].split(":")[0][:40] in text and f"example:\n  {module.EXAMPLE}" in text
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    words = module.EXAMPLE.split()
    assert words[:2] == ["dcd", name]
    parser.parse_args(words[2:])
    options = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    assert not [word for word in options if "-" in word[2:]]
    assert not {"--workers", "--bundle_root", "--json"} & set(options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepair"], "unknown command – dcd – expected 'prepare', found 'prepair' – see dcd --help"),
        (
            ["studies", "x", "--outptu", "y", "--output", "z"],
            "unknown option – dcd studies – expected --output, found ",
        ),
        (["studies", "x"], "the following arguments are required: --output – dcd studies – see dcd studies --help"),
        (["studies", "nowhere", "--output", "z"], "no data list – nowhere – expected a file, found none"),
        (["phantoms", "--jobs", "0", "--output", "z"], "argument --jobs: expected a whole number above 0, found '0'"),
        (["prepare", "brats24", "--task_name", "x", "--output", "z"], "option of Decathlon tasks – --task_name"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert dcd(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}"), line


def test_an_interruption_is_no_traceback(monkeypatch, capsys) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "run", interrupt)
    assert dcd(["prepare", "brats24", "--output", "z"]) == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    def fail(_: object) -> int:
        raise KeyError("bug")

    monkeypatch.setattr(prepare, "run", fail)
    with pytest.raises(KeyError, match="bug"):
        dcd(["prepare", "brats24", "--output", "z"])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_lacks_letters_gets_them_escaped(encoding, monkeypatch, tmp_path) -> None:
    """A dash, and a name that is no UTF-8, in what is printed and in an error."""
    folder = tmp_path / os.fsdecode(b"\xce\xb1 \xff")
    bundle = BUNDLES / "hippocampus_segmentation_student"
    raw = [io.BytesIO(), io.BytesIO()]
    for name, buffer in zip(("stdout", "stderr"), raw, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding))
    assert dcd(["studies", str(folder), "--output", str(tmp_path / "out")]) == 1
    assert dcd(["build", "hippocampus", "--output", str(folder)]) == 0
    assert dcd(["inspect", str(bundle)]) == 0
    sys.stderr.flush()
    printed, errors = (buffer.getvalue().decode(encoding) for buffer in raw)
    assert errors.startswith("error: no data list ") and errors.count("\n") == 1
    assert "\\udcff" in printed and "This is an inventory" in printed


class _Gone(io.StringIO):
    """What nobody reads any more."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_what_is_found_is_written_before_it_is_printed(monkeypatch, prepared, tmp_path) -> None:
    folder = shutil.copytree(prepared("hippocampus"), tmp_path / "data")
    (folder / "check.json").unlink(missing_ok=True)
    monkeypatch.setattr(sys, "stdout", _Gone())
    assert dcd(["check", str(folder), "--output", str(tmp_path / "report.json")]) == 1
    assert (folder / "check.json").is_file() and (tmp_path / "report.json").is_file()
