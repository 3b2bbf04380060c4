"""Checks of a bundle's files that execute none of them: layout, metadata, hashes, paths, what the README says."""

import re
from pathlib import Path

import yaml
from monai.bundle import verify_metadata

from dcd_ext.bundles.card import readme_commands
from dcd_ext.bundles.checks import NotApplicable, Subject
from dcd_ext.bundles.readme import command_problem
from dcd_ext.bundles.sums import LARGE_FILES, SUMS, check_sums, check_zip
from dcd_ext.errors import UserError
from dcd_ext.io import sha256

# a copy, so that the check needs no network: github.com/Project-MONAI/MONAI-extra-test-data, release 0.8.1
SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")
_GIT_LIMIT = 25 * 10**6
_TEXTS = (".json", ".conf", ".md", ".txt", ".yml", ".yaml", ".py")
_MACHINE_PATH = re.compile(
    r"""(?<![\w.:@$~}])/(?:home|root|Users|tmp|mnt|media|opt|usr|var|work|scratch|private)/[^\s"'`,)]*"""
    r"""|[A-Za-z]:\\\\?Users|site-packages/"""
)


def check_files(subject: Subject) -> str:
    """The files every bundle of the model zoo has."""
    needed = ["LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md"]
    if subject.packed:
        needed += ["models/model.pt", "models/model.ts", "README.md"]
    missing = [f for f in needed if f not in subject.contents.files and f not in _downloaded_later(subject)]
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
    """``metadata.json`` against the newest schema of the model zoo, by MONAI."""
    url = str(subject.bundle.metadata.get("schema", ""))
    if Path(url).name != SCHEMA.name:
        raise UserError("schema", "configs/metadata.json", SCHEMA.name, url, "set the entry 'schema'")
    meta_file = str(subject.bundle.root / "configs" / "metadata.json")
    verify_metadata(meta_file=meta_file, filepath=str(SCHEMA), hash_val=sha256(SCHEMA), hash_type="sha256")
    return f"{SCHEMA.stem}: no error"


def check_sha256(subject: Subject) -> str:
    """Every file is what was packed, and so is every other byte of a zip."""
    if not subject.packed:
        raise NotApplicable(f"no {SUMS}: not packed")
    count = check_sums(subject.contents, _downloaded_later(subject))
    if subject.given.is_file():
        check_zip(subject.bundle.root, subject.given)
    return f"{count} files as packed"


def check_sizes(subject: Subject) -> str:
    """Large files travel outside of git, which ignores weights and results."""
    if subject.given.is_file():
        raise NotApplicable("a zip is not put into git")
    sizes = {f: size for f, size in subject.contents.sizes.items() if not f.startswith(("models/", "eval/"))}
    for file, size in sizes.items():
        if size > _GIT_LIMIT:
            expected, step = f"at most {_GIT_LIMIT:,} bytes", f"list it in {LARGE_FILES}"
            raise UserError("large file", file, expected, f"{size:,}", step)
    return f"largest {max(sizes.values(), default=0):,} bytes (weights and results aside)"


def check_paths(subject: Subject) -> str:
    """Nothing names a folder of the machine it was made on, in TorchScript's debug records neither."""
    for file in sorted(subject.contents.files):
        results = file.startswith("eval/") and not subject.given.is_file()  # of runs in this folder; not packed
        if file.endswith((*_TEXTS, ".ts", ".onnx")) and not results:
            match = _MACHINE_PATH.search(subject.contents.read(file).decode("latin-1"))
            if match:
                expected, step = "paths below the bundle or /workspace", "edit it, or export it with dcd pack"
                raise UserError("path of one machine", file, expected, match[0][:80], step)
    return "none of this or another machine"


def check_readme(subject: Subject) -> str:
    """Every command of the README names programs, files, run ids and options that exist; none is run."""
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


def _downloaded_later(subject: Subject) -> frozenset[str]:
    if LARGE_FILES not in subject.contents.files:
        return frozenset()
    entries = (yaml.safe_load(subject.contents.read(LARGE_FILES)) or {}).get("large_files") or []
    return frozenset(str(entry.get("path")) for entry in entries)


TEXT_CHECKS = (check_files, check_version, check_metadata, check_sha256, check_sizes, check_paths, check_readme)
