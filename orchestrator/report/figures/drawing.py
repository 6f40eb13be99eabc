"""How all figures look, and the bytes of their files: the same for the same run, whatever the user's matplotlibrc says.

Text is drawn literally: no mathtext, no TeX. Colours are those of Okabe & Ito (2008) for methods, which also differ by
their markers, and cividis (Nuñez et al. 2018, doi 10.1371/journal.pone.0199239) for what is ordered. All kinds of
colour vision tell both apart, and grey print keeps the order of cividis.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, MaxNLocator

from orchestrator.core.metrics import quantity
from orchestrator.core.text import visible
from orchestrator.report.numbers import number
from orchestrator.report.page.figure import COLOURS
from search_spaces import Constraint

MARKERS = ("o", "s", "^", "D", "X", "v", ">", "<")
"""As the shapes of the HTML page."""

BASE, SMALL = 7.0, 6.0
"""Sizes of text in points; captions of papers have 8 to 9."""

_MOST_CHARACTERS = 24

_CHARACTER = 0.052
"""Inches that a character of the smaller size is wide, about."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that text has the same size everywhere
    "font.size": BASE,
    "axes.titlesize": BASE,
    "axes.labelsize": BASE,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,
    "text.usetex": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for; 3, the default, is refused by many
    "ps.fonttype": 42,
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "svg.hashsalt": "continual-sweep",
}


@dataclass
class Drawing:
    """A figure with what a reader must know to read it.

    Args:
        figure: as Matplotlib's object, which belongs to no window and no pyplot state.
        caption: sentences for the paper's caption.
    """

    figure: Figure
    caption: list[str] = field(default_factory=list)


class ShownFigure(Figure):
    """A figure that a notebook shows by itself, whatever its Matplotlib is set up for."""

    def _repr_png_(self) -> bytes:
        return encode(Drawing(self), "png")


@contextmanager
def styled() -> Iterator[None]:
    """Set the style inside the block, on top of Matplotlib's own defaults."""
    with matplotlib.rc_context():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)
            matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    figure = ShownFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Figure, counts: Sequence[int], per_row: int, **more: Any) -> list[list[Axes]]:
    """Return axes for groups of panels; each group begins a row.

    Args:
        figure: where they are drawn.
        counts: of the panels in each group.
        per_row: at most.
        more: passed on to `Figure.subplots`.
    """
    n_rows = sum(rows_of(count, per_row) for count in counts)
    grid = figure.subplots(n_rows, min(per_row, max(counts)), squeeze=False, **more)
    found: list[list[Axes]] = []
    row = 0
    for count in counts:
        rows = rows_of(count, per_row)
        places = [axes for line in grid[row : row + rows] for axes in line]
        found.append(places[:count])
        for axes in places[count:]:
            axes.remove()
        row += rows
    return found


def rows_of(count: int, per_row: int) -> int:
    """Return how many rows so many panels take."""
    return math.ceil(count / per_row)


def colour(index: int) -> str:
    """Return the colour of a method by its place in the spec."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Return the marker of a method, which differs where colours come again."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def shown(text: object, most: int = _MOST_CHARACTERS) -> str:
    """Return foreign text as it is drawn: one line, shortened, characters without a glyph spelled out."""
    known = _glyphs()
    spelled = [visible(c) if ord(c) in known else ascii(c)[1:-1] for c in str(text)[: most + 1]]
    if sum(map(len, spelled)) > most:
        while sum(map(len, spelled)) >= most:
            spelled.pop()
        spelled.append("…")
    found = "".join(spelled)
    return f" {found}" if found.startswith("_") else found  # legends leave out what begins with one


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the characters that the font has."""
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def say(figure: Figure, sentences: Sequence[str]) -> None:
    """Write sentences below everything, for what must not be lost if the caption is."""
    if sentences:
        lines = textwrap.wrap(" ".join(sentences), int(figure.get_figwidth() * 20))
        label = figure.supxlabel("\n".join(lines), fontsize=SMALL, x=0.01, ha="left")
        label.set_multialignment("left")


def measure(axis: Axis, metric: str, n_ticks: int = 4) -> None:
    """Give an axis round ticks with the units of a metric or cost."""
    axis.set_major_locator(MaxNLocator(n_ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(metric, value)))


def tick(metric: str, value: float) -> str:
    """Return a number of an axis: as elsewhere, but without zeros at the end."""
    name = quantity(metric).metric
    if name.endswith("_bytes"):
        return "0" if value == 0 else number(name, value)
    text = f"{value:,.0f}" if name == "n_parameters" else f"{value:.4g}"
    return f"{text} s" if name.endswith("seconds") else text


def limit_text(limit: Constraint) -> str:
    """Return the operator and the value of a limit, such as `≤ 0.05`."""
    return f"{'≤' if limit.operator == '<=' else '≥'} {tick(limit.metric, limit.limit)}"


def name_ticks(axis: Axis, names: Sequence[str], inches: float = math.inf, most: int = 10) -> None:
    """Name the places 0.5, 1.5, … of an axis, or every n-th if there are more than `most`.

    Args:
        axis: the axis.
        names: of its places.
        inches: length of the axis, if names that are too long for it are turned.
        most: names.
    """
    step = math.ceil(len(names) / most)
    labels = [shown(name, 12) for name in names[::step]]
    rotation = 90 if is_turned(names, inches, most) else 0
    axis.set_ticks([index + 0.5 for index in range(0, len(names), step)], labels, rotation=rotation)


def is_turned(names: Sequence[str], inches: float, most: int = 10) -> bool:
    """Return whether names are too long to stand side by side."""
    step = math.ceil(len(names) / most)
    return _longest(names[::step]) * _CHARACTER * 1.15 > inches * step / len(names)


def label_inches(names: Sequence[str], inches: float, most: int = 10) -> float:
    """Return how high the names of the places of an axis are, and its label below them."""
    return 0.3 + (_longest(names) * _CHARACTER if is_turned(names, inches, most) else _CHARACTER)


def _longest(names: Sequence[str]) -> int:
    return max((len(shown(name, 12)) for name in names), default=0)


def legend_columns(labels: Sequence[str], inches: float) -> int:
    """Return in how many columns a legend fits a width, with rows that are about equally long."""
    most = max(int(inches / (max(map(len, labels)) * _CHARACTER + 0.5)), 1)
    return math.ceil(len(labels) / rows_of(len(labels), most))


def finish(figure: Figure) -> Figure:
    """Lay a figure out and make its texts, so that it stays literal and at its places outside of `styled`."""
    figure.draw_without_rendering()
    return figure


def encode(drawing: Drawing, file_format: str) -> bytes:
    """Return the bytes of a file: `pdf`, `svg` or `png`. They hold no date."""
    file = io.BytesIO()
    caption = visible(" ".join(drawing.caption))
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "Subject": caption},
        "svg": {"Date": None, "Description": caption},
        "png": {"Description": caption},
    }
    with styled():
        drawing.figure.savefig(file, format=file_format, metadata=metadata[file_format])
    return file.getvalue()
