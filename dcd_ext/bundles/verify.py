"""Verify a bundle, folder or zip: the model zoo's checks and ours."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dcd_ext.bundles.checks import FAILED, SKIPPED, Result, Subject, run_checks
from dcd_ext.bundles.contents import Contents, open_contents
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.verify_network import NETWORK_CHECKS, check_commands
from dcd_ext.bundles.verify_text import TEXT_CHECKS
from dcd_ext.errors import UserError

__all__ = ["verify"]


def verify(path: Path, dataset_dir: Path | None = None) -> list[Result]:
    """Check a bundle.

    Args:
        path: folder or zip; a zip is unpacked into a temporary folder.
        dataset_dir: prepared data of its task; if given, the README's commands are run.

    Returns:
        One result per check.

    Raises:
        UserError: if it is no bundle, or a file of a zip is damaged.
    """
    contents = open_contents(path)
    if contents.problems:
        raise UserError("unsafe paths", path, "files below the bundle", contents.problems[0], "do not unpack it")
    if path.is_dir():
        return _run(Subject(BundleFolder(path), contents, path, dataset_dir))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, contents.name)
        _unpack(contents, root)
        return _run(Subject(BundleFolder(root), contents, path, dataset_dir))


def _run(subject: Subject) -> list[Result]:
    """Building a network executes its config, and commands are programs: only of what has no finding so far."""
    results = run_checks(subject, TEXT_CHECKS)
    failed = {r.check for r in results if r.status == FAILED}
    left_out = (check_commands,) if failed else ()
    results += run_checks(subject, [check for check in NETWORK_CHECKS if check not in left_out])
    reason = "a check before it failed"
    return results + [Result(check.__name__.removeprefix("check_"), SKIPPED, reason) for check in left_out]


def _unpack(contents: Contents, root: Path) -> None:
    """Write the files; each is read to its end, which compares its CRC-32."""
    for file in contents.files:
        target = root / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents.read(file))
