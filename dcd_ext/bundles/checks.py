"""One check of a bundle: a function that returns what it saw, fails with an error, or says why it does not apply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dcd_ext.bundles.contents import Contents
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError, first_cause

OK, SKIPPED, FAILED = "ok", "skipped", "FAILED"


class NotApplicable(Exception):
    """The check has nothing to look at, e.g. a bundle without weights."""


class Differs(Exception):
    """The bundle is not what it should be; takes a summary and the lines of a unified diff."""


@dataclass(frozen=True)
class Subject:
    """A bundle under verification."""

    bundle: BundleFolder  # unpacked if it was a zip
    contents: Contents  # as they came, folder or zip
    given: Path  # by the user
    task: Path | None = None  # file of a bundle of the user's own task

    @property
    def packed(self) -> bool:
        """Whether it was packed, as opposed to a bundle among the sources of the collection."""
        return "SHA256SUMS" in self.contents.files

    def need(self, file: str, why: str) -> Path:
        """Path of a file, or :class:`NotApplicable`."""
        path = self.bundle.root / file
        if not path.is_file():
            raise NotApplicable(f"no {file}: {why}")
        return path


@dataclass(frozen=True)
class Result:
    """What came out of one check: its status, a line of detail, and possibly further lines."""

    check: str
    status: str
    detail: str
    lines: list[str] = field(default_factory=list)


def run_checks(subject: Subject, checks: Sequence[Callable[[Subject], str]]) -> list[Result]:
    """Run all checks; one that fails does not keep the others from running."""
    results = []
    for check in checks:
        name = check.__name__.removeprefix("check_")
        try:
            results.append(Result(name, OK, check(subject)))
        except NotApplicable as e:
            results.append(Result(name, SKIPPED, str(e)))
        except Differs as e:
            results.append(Result(name, FAILED, *e.args))
        except UserError as e:
            results.append(Result(name, FAILED, str(e)))
        except Exception as e:  # what a broken bundle raises cannot be foreseen
            cause = first_cause(e)
            message = (str(cause).strip() or "no message").splitlines()[0]
            results.append(Result(name, FAILED, f"{type(cause).__name__}: {message[:300]}"))
    return results
