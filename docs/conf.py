"""Settings of the documentation: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parent.parent
PACKAGES = ("rlkd_env", "agents", "experiments")
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
suppress_warnings = ["ref.python"]  # signatures hold short names, of which some stand for several things

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
    """Return a package and all modules below it by name, and whether each is a package, without private ones."""
    folders = getattr(importlib.import_module(package), "__path__", None)
    if folders is None:
        return [(package, False)]
    inside = [
        (module.name, module.ispkg)
        for module in pkgutil.walk_packages(folders, f"{package}.")
        if not module.name.rpartition(".")[2].startswith("_")
    ]
    return [(package, True), *inside]


def _link(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    """Link a name that a room exports to where its module documents it."""
    room, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or room.partition(".")[0] not in PACKAGES:
        return None
    try:
        part = getattr(importlib.import_module(room), name)
        target = f"{part.__module__}.{part.__qualname__}"
    except (ImportError, AttributeError):
        return None
    domain, page = env.get_domain("py"), node.get("refdoc", "index")
    return domain.resolve_xref(env, page, app.builder, node["reftype"], target, node, content)


def setup(app: Sphinx) -> None:
    """Fill the pages of the reference when they are read, and link what rooms export."""
    app.connect("source-read", _write_room)
    app.connect("missing-reference", _link)
