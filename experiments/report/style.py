"""The style of figures, as PNGs on white and inside a page, whose colours they take."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from scipy.special import expit, logit

COLOURS = {
    "paper": "#ffffff",
    "ink": "#1f2531",
    "muted": "#667081",
    "grid": "#dce0e6",
    "blue": "#0072b2",
    "vermilion": "#d55e00",
    "green": "#009e73",
    "purple": "#b3589a",
    "orange": "#d18f00",
    "sky": "#3f9fd8",
}
"""The colours on white, by their names in the page's style sheet. The hues are close to those of Okabe and Ito (2008),
which people with any kind of colour vision can distinguish."""
ON_DARK = {
    "paper": "#14171d",
    "ink": "#e8ebf0",
    "muted": "#9aa5b5",
    "grid": "#343b47",
    "blue": "#56b4f0",
    "vermilion": "#ff8a4c",
    "green": "#35cf9f",
    "purple": "#e493cb",
    "orange": "#f5bd4f",
    "sky": "#9ad8ff",
}
"""The same on dark paper."""
HUES = ("blue", "vermilion", "green", "purple", "orange", "sky")
MARKERS = "os^DvP"
"""Markers that do the same."""
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), ":")
"""Dashes that distinguish curves without colour, as many as hues."""
_WIDTH = 4.7  # inches; at 72 units per inch about the width of a phone, so text keeps its size there
_PICTURE_WIDTH = 3.6  # inches, so that several fit side by side
_FRAME = 0.01  # inches around a picture, for half of the line around it
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
}
_COLOURED = {
    "paper": ("axes.facecolor", "figure.facecolor"),
    "grid": ("grid.color",),
    "muted": ("axes.edgecolor", "xtick.color", "ytick.color"),
    "ink": ("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"),
}
"""The settings that are colours, by the names of these."""
NEAREST_TO_0, NEAREST_TO_1 = 3e-3, 3e-5  # where probabilities, most of which are close to 1, are clipped
_LEGEND_WIDTH, _LEGEND_SIGN = 60, 6  # characters below a figure, and what the sign before a label takes of them
_CHARACTER = 1 / 44  # of a character in a tick's label, as a share of an axis
_LINEAR_SPAN = 3.0  # below this ratio of temperatures their axis is linear: a log scale would have too few ticks


def settings() -> dict[Any, Any]:
    """Return matplotlib's settings in the colours of today's paper."""
    coloured = {setting: COLOURS[name] for name, settings in _COLOURED.items() for setting in settings}
    return {**_SETTINGS, **coloured}


@contextmanager
def dark_paper() -> Iterator[None]:
    """Draw for dark paper within the ``with`` block."""
    before = dict(COLOURS)
    COLOURS.update(ON_DARK)
    try:
        yield
    finally:
        COLOURS.update(before)


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its PNG without the ending, its title, and its caption: also the alternative text."""

    name: str
    title: str
    caption: str
    figure: Figure

    @property
    def is_wide(self) -> bool:
        """Whether the figure takes the whole width of a page."""
        return float(self.figure.get_figwidth()) > _WIDTH

    def png(self) -> bytes:
        """Return the figure on the paper it was drawn for."""
        content = io.BytesIO()
        with matplotlib.rc_context(settings()):
            self.figure.savefig(content, format="png", dpi=160, facecolor=COLOURS["paper"])
        return content.getvalue()

    def svg(self) -> str:
        """Return the figure as an ``<svg>`` element whose colours are variables of the page's style sheet."""
        content = io.StringIO()
        with matplotlib.rc_context({**settings(), "svg.hashsalt": self.name}):
            self.figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
        svg = content.getvalue()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
        svg = re.sub(r'( id="|href="#|url\(#)', rf"\1{self.name}-", svg)  # ids must be unique in the page
        svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
        for name, colour in COLOURS.items():
            svg = re.sub(rf"{colour}(?![0-9a-f])", f"var(--{name})", svg, flags=re.IGNORECASE)
        return svg


def new_picture(pixels: np.ndarray, opacity: float = 1.0, room: float = 0.0) -> Axes:
    """Return axes in a new figure that show an image ``(height, width, 3)``, uint8, and have its pixels as coordinates.

    There are ``room`` inches of space below the image.
    """
    height, width = pixels.shape[:2]
    with matplotlib.rc_context(settings()):
        shown = (_PICTURE_WIDTH - 2 * _FRAME) * height / width
        size = (_PICTURE_WIDTH, shown + 2 * _FRAME + room)
        figure = Figure(figsize=size)
        place = (_FRAME / size[0], (_FRAME + room) / size[1], 1.0 - 2 * _FRAME / size[0], shown / size[1])
        axes = figure.add_axes(place)
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="none", alpha=opacity, aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=COLOURS["grid"])
    return axes


def new_axes(horizontal: str, vertical: str, height: float = 3.3, width: float = _WIDTH) -> Axes:
    """Return empty axes with labels, which include units, in a new figure of a height and a width in inches."""
    with matplotlib.rc_context(settings()):
        axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    axes.set(xlabel=horizontal, ylabel=vertical)
    return axes


def file_name(text: str) -> str:
    """Replace the characters of a text that are not allowed in file names."""
    return re.sub(r"[^\w.=+-]", "_", text)


def figure_of(axes: Axes) -> Figure:
    """Return the figure of axes that :func:`new_axes` made."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def add_legend(axes: Axes, columns: int = 2) -> None:
    """Put the legend below the axes, where it hides nothing, in fewer columns where labels are long."""
    longest = max((len(label) for label in axes.get_legend_handles_labels()[1]), default=0)
    columns = max(1, min(columns, _LEGEND_WIDTH // (longest + _LEGEND_SIGN)))
    with matplotlib.rc_context(settings()):
        figure_of(axes).legend(loc="outside lower center", ncols=columns)


def hide_row_ticks(axes: Axes) -> None:
    """Remove grid lines and tick marks of a vertical axis whose ticks are names of rows."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def set_temperature_scale(axes: Axes, values: Any) -> None:
    """Scale the vertical axis for temperatures, logarithmically if their range is wide enough."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite) or finite.min() <= 0:
        return
    low, high = float(finite.min()), float(finite.max())
    if high / low < _LINEAR_SPAN:
        middle, half = (low + high) / 2, max((high - low) / 2, 0.05 * high)
        axes.set_ylim(middle - 1.2 * half, middle + 1.2 * half)
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.15)
    set_log_ticks(axes.yaxis)


def set_log_ticks(axis: Axis) -> None:
    """Put plain numbers at 1, 2 and 5 times the powers of ten of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def set_probability_scale(axes: Axes, values: np.ndarray) -> None:
    """Give the horizontal axis a logit scale for probabilities, most of which are close to 0 or 1."""
    low, high = logit([min(float(values.min()), 0.4), max(float(values.max()), 0.6)])
    room = 0.04 * (high - low)
    axes.set_xscale("logit")
    axes.set_xlim(expit(low - room), expit(high + room))
    left, right = axes.get_xlim()
    ticks: list[float] = []
    for tick in (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
        if left <= tick <= right and (not ticks or _have_room(ticks[-1], tick, logit(right) - logit(left))):
            ticks.append(tick)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _have_room(first: float, second: float, width: float) -> bool:
    """Return whether the labels of two neighbouring probabilities fit beside each other on a logit scale."""
    characters = (len(f"{first:g}") + len(f"{second:g}")) / 2 + 1
    return bool((logit(second) - logit(first)) / width >= characters * _CHARACTER)


def set_count_scale(axes: Axes) -> None:
    """Put ticks of the horizontal axis on whole numbers, such as epochs."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def set_accuracy_limits(axes: Axes, curves: Sequence[np.ndarray], marks: Sequence[float]) -> bool:
    """Set the vertical limits so that steep first epochs, which would squeeze the rest, may lie below the axis.

    The axis shows the accuracies ``marks`` and everything after the first third of every curve ``(epochs,)``, in
    percent.

    Return whether part of a curve lies below the axis.
    """
    known = [curve[np.isfinite(curve)] for curve in curves if np.isfinite(curve).any()]
    if not known:
        return False
    high = max(*(float(curve.max()) for curve in known), *marks, 0.0)
    low = min(*(float(curve[len(curve) // 3 :].min()) for curve in known), *marks, high - 2.0)
    room = 0.06 * (high - low)
    axes.set_ylim(max(low - room, 0.0), min(high + room, 100.0 + room))
    return any(float(curve.min()) < low - room for curve in known)
