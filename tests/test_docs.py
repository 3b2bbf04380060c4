"""What the documents point to exists."""

import re

import pytest

from tests.conftest import ROOT

# of every bundle
ELSEWHERE = {"docs/README.md"}
TESTS = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


# where results are not what a reader of the sources would take them for
DIFFERENCES = [
    (
        "ablations.md",
        "from 0.1 at the start of the run to `1 - ema_decay` (0.001; hippocampus 0.01) after its first tenth",
    ),
    ("methods.md", "averaged over bands and stages, where the authors' code sums it: a factor of (J + 1) · stages"),
    ("methods.md", "voxels 0, 2, 4, … of the full one (floor), whereas the port picks 1, 3, 5, … (nearest-exact)"),
    ("evaluate.md", "the two differ by up to 0.28 in a case and are not comparable"),
    ("evaluate.md", "The validation fold chose the epoch, so scores on it are too good"),
    ("train.md", "Held-out scores of the best epoch are selection scores"),
]


@pytest.mark.parametrize(("page", "text"), DIFFERENCES)
def test_differences_to_the_sources_are_said(page, text):
    assert text in " ".join((ROOT / "docs" / page).read_text("utf-8").split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_and_tests_that_are_named_exist(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in TESTS, name
    for path in re.findall(r"\b((?:scripts|tests|deploy|dcd_ext|bundle_src|docs)/[\w/.-]+\.(?:py|sh|json|md))\b", text):
        assert path in ELSEWHERE or (ROOT / path).exists(), path
