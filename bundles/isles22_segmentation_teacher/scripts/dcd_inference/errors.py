"""One shape for every error a user can cause.

``<what is wrong> – <where> – expected <x>, found <y> – <next step>``. What a docstring calls refused raises it.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

# a text, or one within a list, that MONAI evaluates or replaces
_EXPRESSION = re.compile(r"""(?:^|['"])([$@%][^'"]*)""")
_PACKAGE = re.compile(r"^OptionalImportError|\bpip install\b")
_REFUSAL = re.compile(r"^(?:\w+\.)*(?:ValueError|UserError): (.+ – .+)$", re.MULTILINE)


class UserError(ValueError):
    """An error whose text says what is wrong, where, what was expected and what to do next.

    Args:
        what: what is wrong, in a few words.
        where: the file, config key, case or module concerned.
        expected: what should have been there; leave it out where ``what`` says it all, as for a duplicate.
        found: what is there instead; may be left out, too.
        next_step: what the user does now, as a command where there is one.

    Example:
        >>> str(UserError("teacher weights are missing", "models/model.pt", "a file", "nothing", "train the teacher"))
        'teacher weights are missing – models/model.pt – expected a file, found nothing – train the teacher'
        >>> str(UserError("duplicate case 7", "datalist.json", next_step="remove one"))
        'duplicate case 7 – datalist.json – remove one'
    """

    def __init__(
        self, what: str, where: object, expected: object = "", found: object = "", next_step: str = ""
    ) -> None:
        named = (("expected", str(expected)), ("found", str(found)))
        comparison = ", ".join(f"{name} {value}" for name, value in named if value)
        super().__init__(escape(" – ".join(part for part in (what, str(where), comparison, next_step) if part)))
        self.parts = (what, where, expected, found, next_step)

    def __reduce__(self) -> tuple[type[UserError], tuple]:
        """Worker processes send their errors as pickles, which would call the class with the message alone."""
        return type(self), self.parts


def escape(text: str) -> str:
    """Text that a terminal only prints: control and direction characters are written as ``\\x1b``, ``\\u202e``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def refuse_unlisted(error: OSError) -> None:
    """For ``os.walk``, which passes over a folder that it may not list."""
    raise error


def user_error(error: BaseException) -> UserError | None:
    """The :class:`UserError` that ``error`` is or was caused by; MONAI wraps those of a config several times over.

    A config's own refusals count, too: ``ValueError`` in the same form, because inference runs without this package. So
    do missing packages, files that the operating system refuses, and values of the command line that MONAI took for
    expressions, as the path ``$data``.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        first = first_cause(error)
        # a worker of a DataLoader sends the text of its traceback
        if refusal := _REFUSAL.search(f"{type(first).__name__}: {first}"):
            return UserError(refusal[1], "")
        return _typed_expression(error) or _told_by_the_system(first)
    return cause


def _told_by_the_system(error: BaseException) -> UserError | None:
    """A missing package, a file that the operating system refuses, or a GPU without room."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        found, step = ". ".join(str(error).split(". ")[:2]), "end what else runs there, or lower batch_size"
        return UserError("too little GPU memory", found, next_step=step)
    # some libraries tell it by errors of other types
    if isinstance(error, ModuleNotFoundError) or _PACKAGE.search(f"{type(error).__name__}: {error}"):
        step = "pip install it, or use the environment in which the bundle's packages are installed"
        name = getattr(error, "name", None) or "its packages"
        return UserError("package missing", sys.executable, name, " ".join(str(error).split()), step)
    if isinstance(error, OSError) and error.filename is not None:
        found, step = error.strerror or type(error).__name__, "correct its path or its rights, or see DCD_TRACEBACK=1"
        return UserError("cannot use the file", error.filename, "", found, step)
    return None


def _typed_expression(error: BaseException) -> UserError | None:
    """What is wrong with an option's value that MONAI could not evaluate."""
    # of a syntax error, "text" has the line
    first = first_cause(error)
    reason = _compact(f"{error}{error.__cause__}{first}${getattr(first, 'text', '')}")
    for name, value in typed_options():
        for expression in _EXPRESSION.findall(value):
            # of "%file::id", the reason ends with one of both
            replaced = [f":{part}" for part in re.split("::|#", expression[1:])]
            if not any(_compact(part) in reason for part in (replaced if expression[0] == "%" else [expression])):
                continue
            what = "$, @ or % at the start of a value, which MONAI evaluates"
            found = f"{value} ({type(first).__name__})"
            step = "write a path absolute, or ./ before it"
            return UserError(what, f"--{name}", "a path, or an expression that can be evaluated", found, step)
    return None


def _compact(text: str) -> str:
    """Without what a long expression gets when it is printed: line breaks and quotes."""
    return re.sub(r"[\s'\"\\]", "", text)


def typed_options() -> Iterator[tuple[str, str]]:
    """Names and values of the command line's options, as they were typed."""
    for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            yield option[2:], value if equals else following


def first_cause(error: BaseException) -> BaseException:
    """What an error was raised from in the first place; MONAI wraps those of a config several times over."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def escape_output() -> None:
    """From now on, escape what the terminal's encoding lacks: printing a name or a dash never fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_plainly() -> None:
    """From now on, end the program with the message of a :class:`UserError`, not with a traceback.

    MONAI wraps an error in a config several times over, and the cause drowns; ignite and MONAI log the same error, with
    its traceback, on its way out of an engine. Set the environment variable ``DCD_TRACEBACK`` to see all of it.
    """
    escape_output()
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        cause = user_error(error)
        if cause is None or os.environ.get("DCD_TRACEBACK"):
            previous(kind, error, traceback)
        else:
            print(f"error: {cause}", file=sys.stderr)

    if getattr(previous, "__module__", None) != __name__:
        sys.excepthook = hook
    make_record = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        ours = {"dcd_ext", "dcd_inference"} & set(record.name.split("."))
        if record.levelno >= logging.ERROR and not ours and _is_told_at_the_end(sys.exc_info()[1]):
            record.levelno = -1  # below the level of every handler
        return record

    # loggers that MONAI's handlers make later have handlers of their own, so that no filter reaches all of them
    if getattr(make_record, "__module__", None) != __name__:
        logging.setLogRecordFactory(factory)


def _is_told_at_the_end(error: BaseException | None) -> bool:
    """Whether libraries log an error that is on its way to the end of the program, where one line tells it."""
    if error is None or os.environ.get("DCD_TRACEBACK"):
        return False
    return isinstance(error, SystemExit) or user_error(error) is not None
