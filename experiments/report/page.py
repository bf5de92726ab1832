"""A report as one self-contained HTML page, with its figures as PNGs beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from experiments.report.style import Drawing
from experiments.session.folder import REPORT_FILE, REPORT_FOLDER
from rlkd_env.utils.files import write_atomically


@dataclass(frozen=True)
class Tile:
    """A headline number: its name, its value with unit, and a remark."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text whose first column names the rows.

    ``sort_keys`` has a value a cell by which rows can be sorted; a table that is not open is shown after a click. Of a
    long table only the first rows, and those that are ``kept``, are shown until somebody asks for the others. Columns
    that are ``minor`` are left out on narrow screens.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sort_keys: Sequence[Sequence[float | str | None]] | None = None
    note: str = ""
    is_open: bool = True
    minor: Sequence[str] = ()
    kept: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A heading with text, figures (not those that are None) and a table; figures of a gallery are four to a row.

    What is ``folded`` is shown after a click, below the title that it has; a closed section is as a whole.
    """

    title: str
    drawings: Sequence[Drawing | None]
    table: Table | None = None
    text: str = ""
    is_gallery: bool = False
    folded: Sequence[Drawing | None] = ()
    folded_title: str = ""
    is_closed: bool = False

    @property
    def shown(self) -> list[Drawing]:
        """The figures that are seen at once."""
        return [drawing for drawing in self.drawings if drawing is not None]

    @property
    def hidden(self) -> list[Drawing]:
        """The figures that are seen after a click."""
        return [drawing for drawing in self.folded if drawing is not None]


@dataclass(frozen=True)
class Page:
    """The content of a report; notes say what is not shown, and tables that are None are left out."""

    kind: str
    title: str
    subtitle: str
    warnings: Sequence[str]
    tiles: Sequence[Tile]
    interpretation: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    tables: Sequence[Table | None] = field(default_factory=list)

    @property
    def drawings(self) -> list[Drawing]:
        """All figures in order."""
        return [drawing for section in self.sections for drawing in (*section.shown, *section.hidden)]

    def html(self) -> str:
        """Return the whole page, with text escaped."""
        loader = PackageLoader("experiments.report", ".")
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        environment.filters["unbroken"] = _unbroken
        figures = {drawing.name: Markup(drawing.svg()) for drawing in self.drawings}
        return environment.get_template("page.html").render(page=self, figures=figures)


def _unbroken(text: str) -> Markup:
    """Return a text in which no line ends inside an option of a command."""
    return Markup(re.sub(r"--[a-z][a-z-]*", r'<span class="option">\g<0></span>', str(escape(text))))


def write_page(page: Page, folder: Path) -> list[Path]:
    """Write ``report.html`` and the figures as ``report/*.png``, and return the paths, the page first.

    Figures of an earlier report that are not in this one are deleted.
    """
    html = page.html().encode(errors="backslashreplace")  # for names of files that are no text
    for path in (folder / REPORT_FOLDER, folder / REPORT_FILE):
        if path.is_symlink():
            path.unlink()  # what it points to is not ours
    pictures = {folder / REPORT_FOLDER / f"{drawing.name}.png": drawing.png() for drawing in page.drawings}
    for path, content in pictures.items():
        write_atomically(path, content)
    for path in (folder / REPORT_FOLDER).glob("*.png"):
        if path not in pictures:
            path.unlink()
    write_atomically(folder / REPORT_FILE, html)
    return [folder / REPORT_FILE, *pictures]


def settings_table(title: str, settings: dict[str, Any]) -> Table:
    """Return a closed table of names and values."""
    return Table(title, ["name", "value"], [[name, _plain(value)] for name, value in settings.items()], is_open=False)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
