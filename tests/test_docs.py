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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_and_tests_that_are_named_exist(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in TESTS, name
    for path in re.findall(r"\b((?:scripts|tests|deploy|dcd_ext|bundle_src|docs)/[\w/.-]+\.(?:py|sh|json|md))\b", text):
        assert path in ELSEWHERE or (ROOT / path).exists(), path
