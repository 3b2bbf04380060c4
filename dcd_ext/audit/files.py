"""Judge files by their names: what programs load, start or read by its mere presence."""

from __future__ import annotations

import posixpath

from dcd_ext.audit.allowed import words

__all__ = ["name_problem", "tool_folder"]

_CODE = words(
    ".so .pyd .dll .dylib .pyc .pyo .pyw .pyx .pyz .egg .whl .exe .com .scr .msi .bat .cmd .ps1 .psm1 .vbs .hta .lnk "
    ".jar .sh .command .desktop"
)
# debuggers, matplotlib, git, virtual environments, pip, shells and editors read these from the working directory
_READ_BY_TOOLS = words(
    ".git .pdbrc .pdbrc.py matplotlibrc .matplotlib pyvenv.cfg sitecustomize.py usercustomize.py setup.py setup.cfg "
    "pyproject.toml tox.ini pytest.ini conftest.py noxfile.py .env .envrc .netrc .condarc .gitconfig .gitmodules "
    ".pre-commit-config.yaml .bashrc .profile .vimrc .exrc .python-version makefile dockerfile "
    "docker-compose.yml docker-compose.yaml hubconf.py pip.conf pip.ini .pypirc .npmrc package.json mlproject"
)
_FOLDERS_OF_TOOLS = words(".git .hg .svn .vscode .idea .github .ipython .jupyter .config .ssh __pycache__ .venv")


def name_problem(file: str) -> str | None:
    """What is wrong with a file because of its name and place.

    Args:
        file: path in the bundle.
    """
    *folders, name = file.lower().split("/")
    if posixpath.splitext(name)[1] in _CODE:
        return "a kind of file that programs load or start by itself"
    if name in _READ_BY_TOOLS or tool_folder(file):
        return "a file that tools read, or run, by its mere presence"
    if any(folder.endswith((".egg-info", ".dist-info")) for folder in folders):
        return "an installed package's record, from which plug-ins are started"
    return None


def tool_folder(file: str) -> str | None:
    """The folder of a tool that a file lies in, such as ``.git``: one finding for all that is in it."""
    parts = file.split("/")
    depth = next((i for i, part in enumerate(parts[:-1], 1) if part.lower() in _FOLDERS_OF_TOOLS), None)
    return None if depth is None else "/".join(parts[:depth])
