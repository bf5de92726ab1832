"""Settings of the documentation: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the documented packages are those of this checkout

project = "RLKD"
author = "The RLKD authors"
copyright = "The RLKD authors"
version = release = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "results/*"]
nitpicky = False

html_theme = "furo"
html_title = f"RLKD {version}"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True


class Room(SphinxDirective):
    """Document a package: what it says of itself, then every module in it, each under a heading of its own.

    The pages of the reference name rooms alone, so they stay complete when a module is added, moved or renamed.
    """

    required_arguments = 1
    has_content = False
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the package and its modules."""
        package, *modules = _modules(self.arguments[0])
        lines = ["```{eval-rst}", f".. automodule:: {package}", "   :no-members:", "```", ""]
        for name in modules:
            lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _modules(package: str) -> list[str]:
    """Return the package and all modules below it by name, without those that are private."""
    room = importlib.import_module(package)
    inside = [
        module.name
        for module in pkgutil.walk_packages(room.__path__, f"{package}.")
        if not module.name.rpartition(".")[2].startswith("_")
    ]
    return [package, *inside]


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("room", Room)
