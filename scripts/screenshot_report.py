"""Screenshots of a report at the width of a laptop and of a phone, with headless Chromium.

``PREFIX_1280.png`` and ``PREFIX_390.png``. Needs Chromium. The exit code is 1 if the page overflows the window or an
image does not load.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError, show_plainly

HEIGHTS = {1280: 2400, 390: 1600}
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox because containers run as root; nothing but the report's own file is opened, and it fetches nothing.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars"),
)

# Wide tables scroll inside their own box (.scroll) and the navigation inside its bar: both are no overflow.
_PROBE = """
<script>addEventListener("load", () => {
  const width = document.documentElement.clientWidth;
  const inside = e => e.closest(".scroll, nav") !== null;
  const wide = [...document.body.querySelectorAll("*")].filter(e => !inside(e)
    && e.getBoundingClientRect().right > width + 1).map(e => e.tagName + ": " + e.textContent.slice(0, 40));
  const images = [...document.images];
  const result = {width, content_width: document.documentElement.scrollWidth, wide,
    images: images.length, broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)};
  const out = document.createElement("pre");
  out.id = "layout-probe"; out.textContent = JSON.stringify(result); parent.document.body.append(out);
});</script></body>"""


def find_chromium() -> str | None:
    """The browser's path, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def layout(page: Path, width: int) -> dict[str, Any]:
    """What the browser says of ``page`` in a window of ``width`` pixels.

    Returns:
        ``width`` of the window and ``content_width``, in CSS pixels; ``wide``: elements that overflow; number of
        ``images`` and the alt texts of those ``broken``.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        text = html.escape(page.read_text("utf-8").replace("</body>", _PROBE), quote=True)
        # A window is at least 500 pixels wide, a frame may be as narrow as a phone.
        frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{text}"></iframe>'
        copy.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}</body>', "utf-8")
        dom = _run(copy, width, 900, "--dump-dom")
    found = re.search(r'<pre id="layout-probe">(.*?)</pre>', dom, re.DOTALL)
    if found is None:
        what, step = "the browser did not finish the page", "open it by hand"
        raise UserError(what, page, "a rendered page", dom[:80], step)
    return json.loads(html.unescape(found.group(1)))


def screenshot(page: Path, width: int, height: int, png: Path) -> None:
    """Write the top ``height`` pixels of ``page``, ``width`` pixels wide, to ``png``."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "shot.png"
        _run(page, width, height, f"--screenshot={made}")
        if not made.exists():
            raise UserError("the browser wrote no screenshot", page, "a PNG file", "none", "open the page by hand")
        shutil.move(made, png)


def _run(page: Path, width: int, height: int, *flags: str) -> str:
    browser = find_chromium()
    if browser is None:
        raise UserError("no browser", "PATH", " or ".join(_NAMES), "none of them", "install Debian's chromium package")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *flags]
        done = subprocess.run(
            [*command, page.resolve().as_uri()], check=True, capture_output=True, text=True, timeout=120
        )
    return done.stdout


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--output", required=True, metavar="PREFIX", help="path without _WIDTH.png")
    args = parser.parse_args(argv)
    good = True
    for width, height in HEIGHTS.items():
        seen = layout(args.report, width)
        screenshot(args.report, width, height, Path(f"{args.output}_{width}.png"))
        fits = seen["content_width"] <= seen["width"] and not seen["wide"]
        good = good and fits and not seen["broken"]
        print(
            f"{width} px: {'fits' if fits else 'overflows: ' + '; '.join(seen['wide'][:3])}, "
            f"{seen['images'] - len(seen['broken'])} of {seen['images']} images loaded"
        )
    return 0 if good else 1


if __name__ == "__main__":
    show_plainly()
    sys.exit(main())
