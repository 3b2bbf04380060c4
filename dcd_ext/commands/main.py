"""``dcd COMMAND ...``: what all commands share.

A command is a module of this package. The first line of its docstring is its summary, the rest its description;
``EXAMPLE`` is a command line; ``add_arguments(parser)`` declares options; ``run(options)`` does the work,
raises :class:`UserError`, and returns an exit code where it can be other than 0.
"""

import argparse
import ast
import difflib
import importlib
import inspect
import logging
import os
import pkgutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import dcd_ext.commands
from dcd_ext.errors import UserError, escape_output, user_error

_HELPERS = {"common", "main"}


class _Parser(argparse.ArgumentParser):
    """Ends with one line and exit code 1, as for every other error of a user's."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {message} – {self.prog} – see {self.prog} --help\n")


def summaries() -> dict[str, str]:
    """Each command with the first line of its docstring, read without importing it: most of them import torch."""
    folder = Path(dcd_ext.commands.__path__[0])
    names = sorted({module.name for module in pkgutil.iter_modules([str(folder)])} - _HELPERS)
    texts = {name: ast.get_docstring(ast.parse((folder / f"{name}.py").read_text("utf-8"))) for name in names}
    return {name.replace("_", "-"): (text or "").splitlines()[0] for name, text in texts.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; without arguments, ``sys.argv``'s.

    Returns:
        The command's exit code; 1 after an error that was printed as one line, 130 after an interruption.
    """
    escape_output()
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    try:
        return _run(arguments[0], arguments[1:])
    except SystemExit as end:  # argparse's, after --help or wrong options
        return int(end.code or 0)
    except KeyboardInterrupt:
        print("interrupted: no file is half-written; start the same command again", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as "| head", has seen enough
        return 1
    except Exception as error:
        cause = user_error(error)
        if cause is None or os.environ.get("DCD_TRACEBACK"):
            raise
        print(f"error: {cause}", file=sys.stderr)
        return 1
    finally:
        _flush()


def _flush() -> None:
    """Print what is left, or drop it where nobody reads: otherwise Python tries once more at its end, and fails."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _overview() -> str:
    known = summaries()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {text}" for name, text in known.items()]
    return "\n".join(["usage: dcd COMMAND ...", "", *lines, "", "dcd COMMAND --help shows options and an example."])


def _run(name: str, arguments: list[str]) -> int:
    known = summaries()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        expected = f"'{close[0]}'" if close else ", ".join(known)
        raise UserError("unknown command", "dcd", expected, f"'{name}'", "see dcd --help")
    # our own messages; of the libraries only warnings
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("dcd_ext").setLevel(logging.INFO)
    # a scheduler's request to stop is an interruption, so that processes we started are stopped, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command: Any = importlib.import_module(f"dcd_ext.commands.{name.replace('-', '_')}")
    return int(command.run(_parse(name, command, arguments)) or 0)


def _parse(name: str, command: ModuleType, arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog=f"dcd {name}",
        description=inspect.getdoc(command),
        epilog=f"example:\n  {command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    options, rest = parser.parse_known_args(arguments)
    if "config_entries" in options:  # see common.add_config_entries
        options.config_entries = rest
    elif rest:
        known = [text for action in parser._actions for text in action.option_strings]
        close = difflib.get_close_matches(rest[0], known, n=1)
        expected = close[0] if close else ", ".join(t for t in known if t.startswith("--"))
        raise UserError("unknown option", f"dcd {name}", expected, rest[0], f"see dcd {name} --help")
    return options
