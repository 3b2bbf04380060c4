"""Figures as self-contained ``<img>`` elements."""

import base64
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colours: told apart by colour-blind readers, too
RUN_COLOURS = ("#5f6b7a", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f")
CLASS_COLOURS = ("#56b4e9", "#f0a500", "#ff6b9d", "#2ecc8f", "#c39bff", "#ffe45c")
_INK, _GRID = "#2b3440", "#e3e7ec"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": _INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "dcd",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}


def style() -> AbstractContextManager[None]:
    """Matplotlib settings of all figures."""
    return mpl.rc_context(_STYLE)


def new_figure(width: float = 4.3, height: float = 2.9) -> Figure:
    """An empty figure (inches); small, so that its text stays readable on a phone."""
    return Figure(figsize=(width, height), layout="constrained")


def picture_axes(ratio: float) -> tuple[Figure, Any]:
    """A figure whose axes fill it without any decoration; ``ratio`` is height by width."""
    figure = new_figure(2.4, 2.4 * ratio)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


@dataclass
class Pictures:
    """Pictures of one case in rows and columns."""

    name: str  # of the case
    note: str  # a sentence above them
    columns: int
    cells: list[dict[str, str]] = field(default_factory=list)  # row by row

    def add(self, image: str, name: str, text: str) -> None:
        """Append a picture (an ``<img>``) with its caption."""
        self.cells.append({"image": image, "name": name, "text": text})


def svg(figure: Figure, alt: str) -> Markup:
    """A vector figure as an ``<img>`` with alternative text."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _img(buffer.getvalue(), "svg+xml", alt, figure)


def image(figure: Figure, alt: str, dpi: int) -> Markup:
    """A raster figure as an ``<img>`` with alternative text."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
    # a palette halves the file; in a grey picture with a few coloured lines the difference is invisible
    Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return _img(buffer.getvalue(), "png", alt, figure)


def _img(content: bytes, kind: str, alt: str, figure: Figure) -> Markup:
    # width and height keep the page from jumping while it loads
    width, height = (round(96 * side) for side in figure.get_size_inches())
    data = base64.b64encode(content).decode("ascii")
    form = Markup('<img alt="{}" width="{}" height="{}" src="data:image/{};base64,{}">')
    return form.format(alt, width, height, kind, data)
