"""``dcd``: one command for everything a user does besides training, evaluating and inference."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import dcd_ext.commands

_HELPERS = {"common", "main"}


def command_names() -> list[str]:
    """Names of all commands: the modules beside this one."""
    found = (module.name for module in pkgutil.iter_modules(dcd_ext.commands.__path__))
    return sorted(name for name in found if name not in _HELPERS)


def main(arguments: list[str] | None = None) -> int:
    """Run ``dcd COMMAND ...``.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        The command's exit code; 2 for an unknown command.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0].replace("-", "_") if arguments else "--help"
    if name in command_names():
        return int(importlib.import_module(f"dcd_ext.commands.{name}").main(arguments[1:]))
    print(f"usage: dcd COMMAND ...\ncommands: {', '.join(command_names())}\nhelp on one: dcd COMMAND --help")
    return 0 if name in ("--help", "-h", "__help") else 2


if __name__ == "__main__":
    sys.exit(main())
