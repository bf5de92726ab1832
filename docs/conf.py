"""Settings of the documentation: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the documented packages are those of this checkout

import rlkd_env

project = "RLKD"
author = "The RLKD authors"
copyright = "The RLKD authors"
version = release = rlkd_env.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "results/*"]
toc_object_entries = False

html_theme = "furo"
html_title = f"RLKD {version}"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _write_room(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001
    """Write a page of the reference: what a room says of itself and exports, then every module in it.

    The pages in the folder are named after rooms and hold a title alone, so the reference stays complete when a module
    is added, moved or renamed.
    """
    folder, _, room = page.rpartition("/")
    if folder != "reference" or room == "index":
        return
    for name, is_package in _modules(room):
        title = [f"## {name}", ""] if name != room else []
        documented = [
            "```{eval-rst}",
            f".. automodule:: {name}",
            *(["   :no-members:"] if is_package else []),
            "```",
            "",
        ]
        exports = getattr(importlib.import_module(name), "__all__", ()) if is_package else ()
        listed = [f"Exports {', '.join(f'`{export}`' for export in exports)}.", ""] if exports else []
        source[0] += "\n".join(["", *title, *documented, *listed])


def _modules(package: str) -> list[tuple[str, bool]]:
    """Return the package and all modules below it by name, and whether each is a package, without private ones."""
    room = importlib.import_module(package)
    inside = [
        (module.name, module.ispkg)
        for module in pkgutil.walk_packages(room.__path__, f"{package}.")
        if not module.name.rpartition(".")[2].startswith("_")
    ]
    return [(package, True), *inside]


def setup(app: Sphinx) -> None:
    """Fill the pages of the reference when they are read."""
    app.connect("source-read", _write_room)
