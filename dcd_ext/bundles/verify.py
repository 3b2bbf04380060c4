"""Verify a bundle of this project, folder or zip: its configs match its sources, and its weights fit."""

import difflib
import json
import re
import tempfile
from pathlib import Path

from dcd_ext.bundles.build import build_bundle
from dcd_ext.bundles.checks import OK, SKIPPED, Differs, Result, Subject, run_checks
from dcd_ext.bundles.contents import open_contents
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.sources import find_task, roles, shipped_tasks, to_json
from dcd_ext.bundles.verify_network import NETWORK_CHECKS
from dcd_ext.bundles.verify_text import TEXT_CHECKS
from dcd_ext.errors import UserError

# status of configs that are not those of the sources, where the user trusts them
DIFFERS = "differs"
_METADATA = "configs/metadata.json"
# what packing writes into metadata.json: versions of the environment, and measured scores
_MEASURED = ("monai_version", "pytorch_version", "numpy_version", "required_packages_version", "eval_metrics", "int8")
# files that no config is made of; verify checks the READMEs and the sums by themselves
_BESIDE = re.compile(
    r"(docs/)?README\.md|SHA256SUMS|large_files\.yml|models/(\.gitkeep|metrics\.json|\w+\.(pt|ts|onnx|xml|bin))"
    r"|models/int8/(pipeline\.json|network_int8\.(xml|bin))"
    r"|(eval|\.cache/huggingface)/.+"
)
_MAX_LINES, _MAX_SIZE = 20, 2 * 10**5


def verify(path: Path, task: Path | None = None, trust: bool = False) -> list[Result]:
    """Check a folder or zip; a zip is unpacked into a temporary folder. Returns one result per check.

    Checks that build networks or execute configs run only if the configs are identical to those rebuilt from the
    sources, or if the user trusts the bundle. No check starts a program. What is no bundle, and a zip with a damaged
    file, is refused.
    """
    contents = open_contents(path)
    if contents.problems:
        raise UserError("unsafe paths", path, "files below the bundle", contents.problems[0], "do not unpack it")
    if path.is_dir():
        return _run(Subject(BundleFolder(path), contents, path, task), trust)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, contents.name)
        for file in contents.files:
            target = root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents.read(file))  # to its end, which compares its CRC-32
        return _run(Subject(BundleFolder(root), contents, path, task), trust)


def _run(subject: Subject, trust: bool) -> list[Result]:
    (sources,) = run_checks(subject, [check_sources])
    text = run_checks(subject, TEXT_CHECKS)
    if sources.status != OK and not trust:
        reason = "executes configs that are not those of the sources; --trust runs it"
        return [sources, *text, *(Result(c.__name__.removeprefix("check_"), SKIPPED, reason) for c in NETWORK_CHECKS)]
    if sources.status != OK:
        sources = Result(sources.check, DIFFERS, sources.detail, sources.lines)
    return [sources, *text, *run_checks(subject, NETWORK_CHECKS)]


def check_sources(subject: Subject) -> str:
    """Every config is what the bundle's sources give for its task, role and version: it holds nothing else."""
    expected = _rebuild(subject)
    found = {file for file in subject.contents.files if not _BESIDE.fullmatch(file)}
    lines: list[str] = []
    different = 0
    for file in sorted(found | expected.keys()):
        one = expected.get(file)
        two = _text(subject, file) if file in found else None
        if one != two:
            different += 1
            before, after = ((text or "").splitlines() for text in (one, two))
            lines += difflib.unified_diff(before, after, f"rebuilt/{file}", f"bundle/{file}", n=1, lineterm="")
    if different:
        rest = len(lines) - _MAX_LINES
        shown = lines if rest <= 0 else [*lines[: _MAX_LINES - 1], f"… {rest + 1} more lines"]
        raise Differs(f"{different} file(s) are not those of the sources", shown)
    return f"identical: {len(expected)} files rebuilt"


def _rebuild(subject: Subject) -> dict[str, str]:
    """Text of each file the sources give; the bundle names its task, but never the file that is read for it."""
    made_from = subject.bundle.metadata.get("generated_from")
    task, role = (made_from.get(key) if isinstance(made_from, dict) else None for key in ("task", "role"))
    where, step = f"{_METADATA}, generated_from", "dcd inspect lists what is in it"
    if not isinstance(task, str) or role not in roles():
        raise UserError("not a bundle of this project", where, "a task and a role", made_from, step)
    if subject.task is None and task not in shipped_tasks():
        raise UserError("unknown task", where, " or ".join(shipped_tasks()), task, "pass --task TASK.json")
    path = find_task(task) if subject.task is None else subject.task
    if path.stem != task:
        raise UserError("another task", path, f"{task}.json", path.name, "pass the task file of this bundle")
    built = {file.partition("/")[2]: text for file, text in build_bundle(path, role).items()}
    version = json.loads(built[_METADATA])["version"]
    if version != subject.bundle.version:
        step = "verify it with that version of dcd-ext"
        raise UserError("another version of the sources", _METADATA, version, subject.bundle.version, step)
    built[_METADATA] = _without_measured(built[_METADATA])
    return {file: text for file, text in built.items() if not _BESIDE.fullmatch(file)}


def _text(subject: Subject, file: str) -> str:
    if subject.contents.sizes[file] > _MAX_SIZE:
        return f"{subject.contents.sizes[file]:,} bytes, not compared\n"
    text = subject.contents.read(file).decode("utf-8", errors="replace").replace("\r\n", "\n")
    return _without_measured(text) if file == _METADATA else text


def _without_measured(text: str) -> str:
    return to_json({key: value for key, value in json.loads(text).items() if key not in _MEASURED})
