"""How figures look: on paper as PNG, and inside a page, where their colours follow the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
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
"""On white paper, by the names that they have in the page's style sheet. Hues near those of Okabe and Ito (2008), which
people with any kind of colour vision can tell apart."""
HUES = ("blue", "vermilion", "green", "purple", "orange", "sky")
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), ":")
"""Told apart without any colour; as many as hues."""
_WIDTH = 4.7
"""Inches; at 72 units an inch about the width of a phone, where the text thus keeps its size."""
_PICTURE_WIDTH = 3.6
"""Inches of an image, several of which stand side by side."""
_FRAME = 0.01
"""Inches around an image, for half of the line that parts it from the paper."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
}
NEAREST_TO_0, NEAREST_TO_1 = 3e-3, 3e-5
"""Where probabilities are clipped: most lie close to 1."""
_LINEAR_SPAN = 3.0
"""Ratio of temperatures below which their axis is linear: ticks of a log scale would be too few."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its words.

    Attributes:
        name: of its PNG, without the ending; unique in a report.
        title: of a few words.
        caption: what one sees, with the numbers that matter; also the text for those who do not see.
        figure: drawn in :data:`COLOURS`.
    """

    name: str
    title: str
    caption: str
    figure: Figure

    def png(self) -> bytes:
        """Return the figure on white paper."""
        content = io.BytesIO()
        with matplotlib.rc_context(_SETTINGS):
            self.figure.savefig(content, format="png", dpi=160, facecolor="white")
        return content.getvalue()

    def svg(self) -> str:
        """Return the figure as an ``<svg>`` element whose colours are variables of the page's style sheet."""
        content = io.StringIO()
        with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": self.name}):
            self.figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
        svg = content.getvalue()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
        svg = re.sub(r'( id="|href="#|url\(#)', rf"\1{self.name}-", svg)  # several figures share a page
        svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
        for name, colour in COLOURS.items():
            svg = re.sub(rf"{colour}(?![0-9a-f])", f"var(--{name})", svg, flags=re.IGNORECASE)
        return svg


def new_picture(pixels: np.ndarray, opacity: float = 1.0, room: float = 0.0) -> Axes:
    """Return axes in a figure of their own that show an image and are measured in its pixels.

    Args:
        pixels: ``(height, width, 3)`` uint8.
        opacity: of the image, through which the paper is seen.
        room: inches below the image.
    """
    height, width = pixels.shape[:2]
    with matplotlib.rc_context(_SETTINGS):
        shown = (_PICTURE_WIDTH - 2 * _FRAME) * height / width
        size = (_PICTURE_WIDTH, shown + 2 * _FRAME + room)
        figure = Figure(figsize=size)
        place = (_FRAME / size[0], (_FRAME + room) / size[1], 1.0 - 2 * _FRAME / size[0], shown / size[1])
        axes = figure.add_axes(place)
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="none", alpha=opacity, aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=COLOURS["grid"])
    return axes


def new_axes(horizontal: str, vertical: str, height: float = 3.3) -> Axes:
    """Return empty axes with labels in a figure of their own.

    Args:
        horizontal: label with unit.
        vertical: label with unit.
        height: of the figure in inches.
    """
    with matplotlib.rc_context(_SETTINGS):
        axes = Figure(figsize=(_WIDTH, height), layout="constrained").add_subplot()
    axes.set(xlabel=horizontal, ylabel=vertical)
    return axes


def file_name(text: str) -> str:
    """Return a text as a file can be called, in every system."""
    return re.sub(r"[^\w.=+-]", "_", text)


def figure_of(axes: Axes) -> Figure:
    """Return the figure that :func:`new_axes` has made."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def add_legend(axes: Axes, columns: int = 2) -> None:
    """Put the legend below the axes, where it hides nothing."""
    with matplotlib.rc_context(_SETTINGS):
        figure_of(axes).legend(loc="outside lower center", ncols=columns)


def set_temperature_scale(axes: Axes, values: Any) -> None:
    """Show temperatures on the vertical axis, in log scale where they span enough."""
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
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def set_probability_scale(axes: Axes, values: np.ndarray) -> None:
    """Show probabilities on the horizontal axis, most of which lie close to 0 or 1: in logit scale."""
    low, high = logit([min(float(values.min()), 0.4), max(float(values.max()), 0.6)])
    room = 0.04 * (high - low)
    axes.set_xscale("logit")
    axes.set_xlim(expit(low - room), expit(high + room))
    left, right = axes.get_xlim()
    ticks = [tick for tick in (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999) if left <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def set_count_scale(axes: Axes) -> None:
    """Show whole numbers on the horizontal axis, such as epochs."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def set_accuracy_limits(axes: Axes, curves: Sequence[np.ndarray], marks: Sequence[float]) -> bool:
    """Leave steep first epochs below the vertical axis, which would squeeze the rest.

    The axis shows all that follows the first third of every curve.

    Args:
        axes: whose vertical limits are set.
        curves: accuracies in percent, ``(epochs,)`` each.
        marks: further accuracies that must be seen.

    Returns:
        Whether something is left out.
    """
    known = [curve[np.isfinite(curve)] for curve in curves if np.isfinite(curve).any()]
    if not known:
        return False
    high = max(*(float(curve.max()) for curve in known), *marks, 0.0)
    low = min(*(float(curve[len(curve) // 3 :].min()) for curve in known), *marks, high - 2.0)
    room = 0.06 * (high - low)
    axes.set_ylim(max(low - room, 0.0), min(high + room, 100.0 + room))
    return any(float(curve.min()) < low - room for curve in known)
