"""A table, and its text for a terminal, a Markdown page or an HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Table", "to_html", "to_markdown", "to_text"]


@dataclass
class Table:
    """A table of texts.

    Attributes:
        title: heading; "" for none.
        header: names of the columns; the first column has the rows' names.
        rows: texts.
        note: one sentence below it.
        bold: (row, column) of texts to stress.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    bold: set[tuple[int, int]] = field(default_factory=set)

    def stressed(self, form: str) -> list[list[str]]:
        """The rows, with the bold texts put into ``form``, such as ``**{}**``."""
        return [
            [form.format(text) if (i, j) in self.bold else text for j, text in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]


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
    rows = map(line, table.stressed("**{}**"))
    return "\n".join([*heading, line(table.header), "|" + "---|" * len(table.header), *rows, *note])


def to_html(table: Table) -> str:
    """A table that scrolls inside its own box; names stand on the left, numbers on the right."""
    align = [' class="text"' if name in ("run", "class") else "" for name in table.header]
    head = "".join(f'<th scope="col"{a}>{html.escape(c)}</th>' for a, c in zip(align, table.header, strict=True))
    escaped = Table("", [], [[html.escape(cell) for cell in row] for row in table.rows], bold=table.bold)
    body = []
    for first, *rest in escaped.stressed("<strong>{}</strong>"):
        cells = "".join(f"<td{a}>{c}</td>" for a, c in zip(align[1:], rest, strict=True))
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    title = html.escape(table.title)
    return (
        f'<h3>{title}</h3><div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}"
    )
