"""Pictures of a report at the width of a laptop and of a phone, for documents.

Usage:
    python scripts/screenshot_report.py report.html --output docs/results/hippocampus_report

writes ``..._1280.png`` and ``..._390.png``. Needs Chromium. Exit status 1 if the page sticks out of the window or an
image does not load.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dcd_ext.errors import show_plainly
from dcd_ext.report.browser import layout, screenshot

HEIGHTS = {1280: 2400, 390: 1600}


def main(argv: list[str] | None = None) -> int:
    """Command line."""
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
            f"{width} px: {'fits' if fits else 'sticks out: ' + '; '.join(seen['wide'][:3])}, "
            f"{seen['images'] - len(seen['broken'])} of {seen['images']} images loaded"
        )
    return 0 if good else 1


if __name__ == "__main__":
    show_plainly()
    sys.exit(main())
