"""Checks of a bundle's text: the model zoo's, plus hashes, paths of the maker's machine, and what the README says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jsonschema

from dcd_ext.bundles.card import readme_commands
from dcd_ext.bundles.checks import NotApplicable, Subject
from dcd_ext.bundles.large_files import LARGE_FILES, listed_files
from dcd_ext.bundles.readme import command_problem
from dcd_ext.bundles.sums import SUMS, check_sums, check_zip
from dcd_ext.errors import UserError

__all__ = ["TEXT_CHECKS"]

# a copy, so that the check needs no network: github.com/Project-MONAI/MONAI-extra-test-data, release 0.8.1
_SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")
_GIT_LIMIT = 25 * 10**6
_MACHINE_PATH = re.compile(
    r"""(?<![\w.:@$~}])/(?:home|root|Users|tmp|mnt|media|opt|usr|var|work|scratch|private)/[^\s"'`,)]*"""
    r"""|[A-Za-z]:\\\\?Users|site-packages/"""
)


def check_files(subject: Subject) -> str:
    """The files every bundle of the model zoo has."""
    needed = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md")
    missing = [file for file in needed if file not in subject.contents.files]
    if subject.packed:
        away = _elsewhere(subject)
        weights = ("models/model.pt", "models/model.ts", "README.md")
        missing += [f for f in weights if f not in subject.contents.files and f not in away]
    if missing:
        raise UserError("file missing", missing[0], "a complete bundle", "no such file", "pack the bundle again")
    return f"{len(subject.contents.files)} files"


def check_version(subject: Subject) -> str:
    """The changelog tells what the version brought."""
    version, changelog = subject.bundle.version, subject.bundle.metadata.get("changelog", {})
    if version not in changelog:
        raise UserError("version without a changelog", "configs/metadata.json", version, list(changelog), "write one")
    return version


def check_metadata(subject: Subject) -> str:
    """``metadata.json`` against the newest schema of the model zoo."""
    schema = json.loads(_SCHEMA.read_text("utf-8"))
    metadata = subject.bundle.metadata
    url = str(metadata.get("schema", ""))
    if Path(url).name != _SCHEMA.name:
        raise UserError("schema", "configs/metadata.json", _SCHEMA.name, url, "set the entry 'schema'")
    errors = sorted(jsonschema.Draft201909Validator(schema).iter_errors(metadata), key=lambda e: list(e.path))
    if errors:
        key = "::".join(map(str, errors[0].path)) or "top level"
        raise UserError(
            "metadata does not fit the schema", f"configs/metadata.json, {key}", _SCHEMA.name, errors[0].message, "edit"
        )
    return f"{_SCHEMA.stem}: no error"


def check_sha256(subject: Subject) -> str:
    """Every file is what was packed, and so is every other byte of a zip."""
    if not subject.packed:
        raise NotApplicable(f"no {SUMS}: not packed")
    count = check_sums(subject.contents, _elsewhere(subject))
    if subject.given.is_file():
        check_zip(subject.bundle.root, subject.given)
    return f"{count} files as packed"


def check_sizes(subject: Subject) -> str:
    """Large files travel outside of git."""
    if subject.given.is_file():
        raise NotApplicable("a zip is not put into git")
    tracked = _tracked(subject.bundle.root)
    files = {
        file: size
        for file, size in subject.contents.sizes.items()
        if file in tracked or not file.startswith(("models/", "eval/"))
    }
    for file, size in files.items():
        if size > _GIT_LIMIT:
            raise UserError(
                "large file", file, f"at most {_GIT_LIMIT:,} bytes", f"{size:,}", f"list it in {LARGE_FILES}"
            )
    return f"largest {max(files.values(), default=0):,} bytes (weights and results that git ignores aside)"


def _tracked(root: Path) -> set[str]:
    """Files of a folder that git has; none where there is no git."""
    try:
        command = ["git", "-C", str(root), "ls-files", "-z"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    return set(listing.split("\0"))


def check_paths(subject: Subject) -> str:
    """Nothing names a folder of the machine it was made on, in TorchScript's debug records neither."""
    for file, text in subject.texts().items():
        if file.startswith("eval/") and not subject.given.is_file():
            continue  # results of runs lie here; they are not packed
        match = _MACHINE_PATH.search(text)
        if match:
            raise UserError("path of one machine", file, "paths below the bundle or /workspace", match[0], "edit it")
    for file in (f for f in subject.contents.files if f.endswith((".ts", ".onnx"))):
        match = _MACHINE_PATH.search(subject.contents.read(file).decode("latin-1"))
        if match:
            raise UserError("path of one machine", file, "none", match[0][:80], "export it with dcd pack")
    return "none of this or another machine"


def check_readme(subject: Subject) -> str:
    """Every command of the README names files, run ids and options that exist."""
    text = subject.contents.read("docs/README.md").decode("utf-8")
    commands = readme_commands(text)
    for command in commands:
        problem = command_problem(command, subject.bundle.root, subject.packed)
        if problem:
            raise UserError("README command cannot run", "docs/README.md", "a working command", problem, command)
    if subject.packed and "README.md" in subject.contents.files:
        card = subject.contents.read("README.md").decode("utf-8")
        if not card.startswith("---\n") or not card.endswith(text):
            raise UserError("model card", "README.md", "a header and docs/README.md", "another text", "pack again")
    return f"{len(commands)} commands"


def _elsewhere(subject: Subject) -> frozenset[str]:
    return listed_files(subject.contents.read(LARGE_FILES)) if LARGE_FILES in subject.contents.files else frozenset()


TEXT_CHECKS = (*(check_files, check_version, check_metadata, check_sha256, check_sizes, check_paths, check_readme),)
