"""Puts what ``dcd build`` reads, and lies beside the package in a clone, into the wheel."""

from pathlib import Path
from shutil import copy, copytree, ignore_patterns, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSources(build_py):
    """Copies ``bundle_src``, and the tested versions and the licence that bundles name, to ``dcd_ext/_sources``."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "dcd_ext" / "_sources"
            rmtree(target, ignore_errors=True)  # of an earlier build
            copytree("bundle_src", target / "bundle_src", ignore=ignore_patterns("__pycache__"))
            for name in ("constraints.txt", "LICENSE"):
                copy(name, target)


setup(cmdclass={"build_py": BuildWithSources})
