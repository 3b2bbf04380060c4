"""docs/architecture.md draws the imports that there are; which of them may be is import-linter's (pyproject.toml)."""

import pkgutil
import re

import grimp
import pytest

import dcd_ext
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
SUBPACKAGES = {module.name for module in pkgutil.iter_modules(dcd_ext.__path__) if module.ispkg}
SHARED = {module.name for module in pkgutil.iter_modules(dcd_ext.__path__) if not module.ispkg} - {"__main__"}


def drawn():
    """Arrows of the drawing, as pairs; ``a --> b & c`` are two."""
    [drawing] = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    arrows = re.findall(r"^\s*(\w+) --> ([\w &]+)$", drawing, re.MULTILINE)
    assert len(arrows) == drawing.count("-->")  # none is overlooked
    return {(source, target) for source, targets in arrows for target in targets.split(" & ")}


def imported():
    """Subpackages and those that they import. The shared modules are open to all and not drawn."""
    graph = grimp.build_graph("dcd_ext", "deploy", cache_dir=None)  # its cache can be older than the files
    pairs = set()
    for module in graph.modules:
        for target in graph.find_modules_directly_imported_by(module):
            pairs.add((subpackage(module), subpackage(target)))
    return {(source, target) for source, target in pairs if source and target and source != target}


def subpackage(module):
    package, _, rest = module.partition(".")
    if package == "deploy":
        return "deploy"
    name = rest.partition(".")[0]
    return name if name in SUBPACKAGES else None


def test_the_drawing_shows_the_imports_there_are():
    missing, gone = sorted(imported() - drawn()), sorted(drawn() - imported())
    assert not missing and not gone, f"draw {missing}, remove {gone} in docs/architecture.md"


def test_every_subpackage_and_shared_module_is_described():
    described = set(re.findall(r"^\| `(\w+)/?` \|", PAGE, re.MULTILINE))
    assert described == SUBPACKAGES | SHARED | {"deploy", "scripts"}


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`(dcd_ext(?:\.\w+)+)`", PAGE))))
def test_what_the_page_names_can_be_imported(word):
    assert pkgutil.resolve_name(word) is not None
