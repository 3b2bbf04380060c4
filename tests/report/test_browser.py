"""The page in headless Chromium, where that is installed."""

import numpy as np
import pytest
from PIL import Image

from dcd_ext.errors import UserError
from scripts import screenshot_report as browser

needs_chromium = pytest.mark.skipif(browser.find_chromium() is None, reason="Chromium is not installed")


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_every_image_loads(report, width):
    seen = browser.layout(report, width)
    assert seen["width"] == width and seen["content_width"] <= width
    assert seen["wide"] == [] and seen["broken"] == [] and seen["images"] > 10


@needs_chromium
def test_the_probe_sees_what_is_wrong(report, tmp_path):
    text = report.read_text("utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("<main>", '<main><div style="width:2000px">x</div><img src="none.png" alt="lost">', 1))
    seen = browser.layout(bad, 1280)
    assert seen["wide"] and seen["broken"] == ["lost"]
    with pytest.raises(UserError, match="wrote no screenshot|no browser|did not finish"):
        browser.layout(_empty(tmp_path), 1280)


def _empty(folder):
    page = folder / "empty.html"
    page.write_text("<p>no body to probe")
    return page


@needs_chromium
def test_screenshots(report, tmp_path):
    assert browser.main([str(report), "--output", str(tmp_path / "shot")]) == 0
    for width, height in browser.HEIGHTS.items():
        with Image.open(tmp_path / f"shot_{width}.png") as image:
            assert image.size == (width, height) and np.ptp(np.asarray(image.convert("L"))) > 100


def test_without_a_browser(report, monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda _name: None)
    with pytest.raises(UserError, match="no browser – PATH – expected chromium .* – install Debian's chromium package"):
        browser.layout(report, 1280)
