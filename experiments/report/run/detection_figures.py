"""The pictures of a detection run: real boxes, detections, and the temperature of each proposal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.patches import Rectangle
from torch import Tensor

from experiments.report.style import COLOURS, HUES, Drawing, figure_of, new_picture, set_log_ticks
from experiments.session.detections import DetectedImage, DetectionRecord
from rlkd_env.tasks.detection.average_precision import Detections

LEAST_SCORE = 0.5  # of a detection that is drawn
_MOST_PROPOSALS = 128  # those with the highest objectness; more would hide each other
_NAMED = 6  # boxes in a caption
_TEMPERATURE_COLOURS = ListedColormap(colormaps["plasma"](np.linspace(0.25, 0.9, 48)))
"""Colours from cold to hot that are distinguishable for everybody, on light and dark pages."""


@dataclass(frozen=True)
class _Box:
    """A box: its corners in pixels (left, top, right, bottom), its class, and its score if it has one."""

    corners: tuple[float, float, float, float]
    number: int
    name: str
    score: float | None = None

    @property
    def label(self) -> str:
        """The name of the class, with the score if there is one."""
        return self.name if self.score is None else f"{self.name} {self.score:.2f}"


def draw_detections(record: DetectionRecord) -> list[Drawing]:
    """Draw the real boxes, both networks' detections and the proposals of every image."""
    temperatures = np.concatenate([image.proposals.temperatures.double().numpy() for image in record.images])
    norm = _temperature_norm(temperatures)
    drawings = []
    for number, image in enumerate(record.images, start=1):
        drawings += [
            _draw_real(number, image, record.class_names),
            _draw_found(number, image, "teacher", image.teacher, record.class_names),
            _draw_found(number, image, "student", image.student, record.class_names),
            _draw_proposals(number, image, norm),
        ]
    return drawings


def _draw_real(number: int, image: DetectedImage, names: Sequence[str]) -> Drawing:
    boxes = _boxes(image.real.corners, image.real.classes, None, names)
    objects = "No object" if not boxes else f"{len(boxes)} object{'s' if len(boxes) > 1 else ''}"
    return _draw_boxes(number, "real boxes", "real", image, boxes, f"{objects} in image {number}")


def _draw_found(number: int, image: DetectedImage, who: str, found: Detections, names: Sequence[str]) -> Drawing:
    boxes = [
        box
        for box in _boxes(found.corners, found.classes, found.scores, names)
        if box.score is not None and box.score >= LEAST_SCORE
    ]
    least = f"a score of at least {LEAST_SCORE:g}"
    if boxes:
        words = f"The {who} finds {len(boxes)} object{'s' if len(boxes) > 1 else ''} with {least}"
    else:
        words = f"The {who} finds nothing with {least}"
        if len(found.scores):
            words += f"; its highest is {float(found.scores.max()):.2f}"
    return _draw_boxes(number, who, who, image, boxes, words)


def _draw_boxes(number: int, title: str, name: str, image: DetectedImage, boxes: Sequence[_Box], words: str) -> Drawing:
    axes = new_picture(_as_colours(image.pixels))
    height, width = image.pixels.shape[1:]
    for box in boxes:
        _draw_box(axes, box, width, height)
    named = ", ".join(box.label for box in boxes[:_NAMED])
    more = f" and {len(boxes) - _NAMED} more" if len(boxes) > _NAMED else ""
    caption = f"{words}: {named}{more}." if boxes else f"{words}."
    return Drawing(f"detections_{number}_{name}", f"Image {number}: {title}", caption, figure_of(axes))


def _draw_box(axes: Axes, box: _Box, width: int, height: int) -> None:
    """Draw a box with its label above it, or inside if there is no room."""
    left, top, right, bottom = box.corners
    colour = COLOURS[HUES[(box.number - 1) % len(HUES)]]
    for line, edge in ((3.4, COLOURS["paper"]), (1.8, colour)):  # the wide line shows the frame on any image
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=line))
    place, align = (right, "right") if (left + right) / 2 > 0.6 * width else (left, "left")
    text = axes.text(place, top, box.label, ha=align, va="top" if top < 0.08 * height else "bottom", clip_on=True)
    text.set(fontsize=9, color=COLOURS["paper"])
    text.set_bbox({"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.12"})


def _draw_proposals(number: int, image: DetectedImage, norm: LogNorm | None) -> Drawing:
    """Draw the proposals in the colour of their temperature, those with the highest objectness on top."""
    axes = new_picture(_as_colours(image.pixels), opacity=0.45, room=0.55)
    temperatures, objectness = (values.double().numpy() for values in image.proposals[1:])
    order = np.argsort(objectness, kind="stable")[-_MOST_PROPOSALS:]
    order = order[np.isfinite(temperatures[order])]
    if norm is None or not len(order):
        caption = f"Image {number} has no proposal with a temperature."
        return Drawing(f"detections_{number}_proposals", f"Image {number}: proposals", caption, figure_of(axes))
    left, top, right, bottom = image.proposals.corners[order].double().numpy().T
    outlines = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1).reshape(-1, 4, 2)
    colours = _TEMPERATURE_COLOURS(norm(temperatures[order]))
    widths = 0.6 + 1.4 * objectness[order].clip(0.0, 1.0)
    axes.add_collection(PolyCollection(list(outlines), facecolors="none", edgecolors=colours, linewidths=widths))
    axes.set(xlim=(0, image.pixels.shape[2]), ylim=(image.pixels.shape[1], 0))
    _add_colour_bar(axes, norm)
    chosen = temperatures[order]
    low, high = f"{chosen.min():.3g}", f"{chosen.max():.3g}"
    told = f"all have the temperature {low}" if low == high else "temperatures"
    if low != high:
        told += f" from {low} to {high}, median {np.median(chosen):.3g}"
    is_part = len(order) < len(temperatures)
    caption = (
        f"{'The' if is_part else 'All'} {len(order)} proposals of image {number}"
        f"{' with the most objectness' if is_part else ''} after the run: {told}. Thick lines mark likely "
        "objects."
    )
    return Drawing(f"detections_{number}_proposals", f"Image {number}: proposals", caption, figure_of(axes))


def _add_colour_bar(axes: Axes, norm: LogNorm) -> None:
    figure = figure_of(axes)
    image_bottom = axes.get_position().y0
    place = figure.add_axes((0.04, 0.72 * image_bottom, 0.92, 0.16 * image_bottom))
    bar = figure.colorbar(ScalarMappable(norm, _TEMPERATURE_COLOURS), cax=place, orientation="horizontal")
    set_log_ticks(bar.ax.xaxis)
    bar.ax.tick_params(labelsize=9.5, color=COLOURS["muted"], labelcolor=COLOURS["ink"])
    bar.set_label("temperature", fontsize=9.5, color=COLOURS["ink"], labelpad=1)
    bar.outline.set_visible(False)


def _temperature_norm(temperatures: np.ndarray) -> LogNorm | None:
    """Return the colour scale of all temperatures, at least a tenth wide."""
    known = temperatures[np.isfinite(temperatures) & (temperatures > 0)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    if high / low < 1.1:
        low, high = low / 1.05, high * 1.05
    return LogNorm(low, high, clip=True)


def _boxes(corners: Tensor, classes: Tensor, scores: Tensor | None, names: Sequence[str]) -> list[_Box]:
    """Return boxes with the names of their classes, the most confident first."""
    told = [None] * len(classes) if scores is None else scores.tolist()
    rows = zip(corners.tolist(), classes.tolist(), told, strict=True)
    boxes = [
        _Box(tuple(place), number, names[number - 1] if 0 < number <= len(names) else f"class {number}", score)
        for place, number, score in rows
    ]
    return boxes if scores is None else sorted(boxes, key=lambda box: -(box.score or 0.0))


def _as_colours(pixels: Tensor) -> np.ndarray:
    """Convert an image ``(channels, height, width)`` to ``(height, width, 3)``, grey unless it has three channels."""
    values = pixels if len(pixels) == 3 else pixels.float().mean(dim=0, keepdim=True).round().byte().expand(3, -1, -1)
    return values.permute(1, 2, 0).contiguous().numpy()
