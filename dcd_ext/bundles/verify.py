"""Verify a bundle of this project, folder or zip: its configs match its sources, and its weights fit."""

import tempfile
from pathlib import Path

from dcd_ext.bundles.checks import OK, SKIPPED, Result, Subject, run_checks
from dcd_ext.bundles.contents import open_contents
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.verify_network import NETWORK_CHECKS
from dcd_ext.bundles.verify_sources import check_sources
from dcd_ext.bundles.verify_text import TEXT_CHECKS
from dcd_ext.errors import UserError

# status of configs that are not those of the sources, where the user trusts them
DIFFERS = "differs"


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
