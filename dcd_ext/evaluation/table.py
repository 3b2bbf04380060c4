"""Per-case metrics as CSV."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from dcd_ext.io import write_text


def write_csv(cases: Mapping[str, Mapping[str, Any]], nsd_tolerance_mm: float, path: str) -> None:
    """One row per case and class of ``metrics.json``; a value that is excluded is an empty field.

    The tolerance is repeated in every row, so that the column ``nsd`` cannot be misread.
    """
    rows = [
        {"case": case, "class": name, **values, "nsd_tolerance_mm": nsd_tolerance_mm}
        for case, entry in cases.items()
        for name, values in entry["classes"].items()
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["case"])
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path)
