"""A picture of what an agent does: temperatures against another property of the instances."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from rlkd_env.instances.temperature import TemperatureRange

_NEAREST = 1e-3
"""Distance from 0 and 1 at which the logit scale is cut."""
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


class TemperaturePlot:
    """A scatter plot of temperatures of which everything but the points and the title is drawn once."""

    def __init__(self, temperature_range: TemperatureRange, horizontal: str, colour: str) -> None:
        figure = Figure(figsize=(5.0, 3.6), dpi=100, layout="constrained")
        self._canvas = FigureCanvasAgg(figure)
        self._axes = figure.add_subplot()
        self._axes.set_xscale("logit")  # most probabilities lie close to 0 or 1
        self._axes.set_xlim(_NEAREST * 0.7, 1.0 - _NEAREST * 0.7)
        self._axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        self._axes.xaxis.set_minor_formatter(NullFormatter())
        self._axes.set_yscale("log")
        low, high = temperature_range.minimum, temperature_range.maximum
        self._axes.set_ylim(low * 0.8, high * 1.25)
        self._axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        self._axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        self._axes.yaxis.set_minor_formatter(NullFormatter())
        self._axes.axhspan(low, high, color="0.95", zorder=0)
        self._axes.set_xlabel(horizontal)
        self._axes.set_ylabel("temperature")
        self._points = self._axes.scatter([], [], c=[], s=14, cmap="viridis", vmin=0.0, vmax=1.0, animated=True)
        figure.colorbar(self._points, ax=self._axes, label=colour)
        self._title = self._axes.set_title(" ", fontsize=10)  # takes its room in the layout
        self._canvas.draw()
        self._title.set_animated(True)
        figure.set_layout_engine("none")
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(figure.bbox)

    def draw(self, horizontal: np.ndarray, temperature: np.ndarray, colour: np.ndarray, title: str) -> np.ndarray:
        """Draw n points, ``(n,)`` each, horizontals and colours in ``[0, 1]``, as ``(height, width, 3)`` uint8."""
        inside = np.clip(horizontal, _NEAREST, 1.0 - _NEAREST)
        self._points.set_offsets(np.column_stack([inside, temperature]))
        self._points.set_array(colour)
        self._title.set_text(title)
        self._canvas.restore_region(self._background)
        self._axes.draw_artist(self._points)
        self._axes.draw_artist(self._title)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
