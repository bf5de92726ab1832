"""A report as one HTML page that needs nothing else, and its figures as PNGs beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.report.style import Drawing
from experiments.session.folder import REPORT_FILE, REPORT_FOLDER
from rlkd_env.utils.files import write_atomically

_TEMPLATE = "page.html"


@dataclass(frozen=True)
class Tile:
    """A headline figure: what it is, its value with unit, and a remark."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row.

    Attributes:
        title: above it.
        columns: heads.
        rows: cells, as many as heads.
        sort_keys: numbers that rows are sorted by, as many as cells; None of a table that is not sorted.
        note: below it.
        is_open: whether it is shown without a click.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sort_keys: Sequence[Sequence[float | str | None]] | None = None
    note: str = ""
    is_open: bool = True


@dataclass(frozen=True)
class Section:
    """A heading with its table and figures; those that are None are left out.

    Attributes:
        title: of a few words.
        drawings: the figures.
        table: above them.
        reading: what is to be seen, in words above them.
        is_gallery: whether the figures are small pictures, four of which fit into a row.
    """

    title: str
    drawings: Sequence[Drawing | None]
    table: Table | None = None
    reading: str = ""
    is_gallery: bool = False

    @property
    def shown(self) -> list[Drawing]:
        """The figures that there are."""
        return [drawing for drawing in self.drawings if drawing is not None]


@dataclass(frozen=True)
class Page:
    """Everything that a report says, as text and figures.

    Attributes:
        kind: ``"run"`` or ``"comparison"``.
        title: of one line.
        subtitle: below it.
        warnings: what the reader must know first.
        tiles: headline figures.
        reading: paragraphs that say what the figures mean.
        sections: with figures.
        notes: what is not shown, and why.
        tables: at the end.
    """

    kind: str
    title: str
    subtitle: str
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    reading: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    tables: Sequence[Table | None] = field(default_factory=list)

    @property
    def drawings(self) -> list[Drawing]:
        """All figures, in order."""
        return [drawing for section in self.sections for drawing in section.shown]

    def html(self) -> str:
        """Return the whole page; text is escaped."""
        loader = PackageLoader("experiments.report", ".")
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        figures = {drawing.name: Markup(drawing.svg()) for drawing in self.drawings}
        return environment.get_template(_TEMPLATE).render(page=self, figures=figures)


def write_page(page: Page, folder: Path) -> list[Path]:
    """Write ``report.html`` and the figures as ``report/*.png``; return the paths, the page first.

    Figures of an earlier report that this one does not have are deleted.
    """
    html = page.html()
    pictures = {folder / REPORT_FOLDER / f"{drawing.name}.png": drawing.png() for drawing in page.drawings}
    for path, content in pictures.items():
        write_atomically(path, content)
    for path in (folder / REPORT_FOLDER).glob("*.png"):
        if path not in pictures:
            path.unlink()
    write_atomically(folder / REPORT_FILE, html.encode())
    return [folder / REPORT_FILE, *pictures]


def settings_table(title: str, settings: dict[str, Any], is_open: bool = False) -> Table:
    """Return names and values as a table."""
    return Table(title, ["name", "value"], [[name, _plain(value)] for name, value in settings.items()], is_open=is_open)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
