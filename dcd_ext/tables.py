"""A table, and its text for a terminal or a Markdown page (for HTML: ``report/macros.html``)."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Table:
    """A table of texts."""

    title: str  # heading; "" for none
    header: list[str]  # names of the columns; the first column has the rows' names
    rows: list[list[str]]
    note: str = ""  # one sentence below it
    bold: set[tuple[int, int]] = field(default_factory=set)  # (row, column) of texts to stress


def to_text(table: Table) -> str:
    """Aligned columns for a terminal."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*filter(None, [table.title]), *texts, *filter(None, [table.note])])


def to_markdown(table: Table) -> str:
    """A Markdown table under its heading."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    heading = [f"### {table.title}", ""] if table.title else []
    note = ["", table.note] if table.note else []
    rows = [
        line(f"**{cell}**" if (i, j) in table.bold else cell for j, cell in enumerate(row))
        for i, row in enumerate(table.rows)
    ]
    return "\n".join([*heading, line(table.header), "|" + "---|" * len(table.header), *rows, *note])
