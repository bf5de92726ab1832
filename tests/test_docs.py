"""The documentation builds without a warning, and its tables of results are those of the committed comparisons."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_reports import several_tasks_content

from experiments.compare.statistics import student_interval

ROOT = Path(__file__).parent.parent


def _load_tables() -> Any:
    """Import docs/tables.py, which is a script in no package."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _load_tables()
DOCUMENTS = [document for document in tables.DOCUMENTS if document.parent.name != "reference"]
RESULTS = ROOT / "docs" / "results.md"
FIGURE = re.compile(r"\d\.\d|\d %|\d ×|\d ms")
SETTINGS = {f"docs/{name}.md" for name in ("guides/population", "guides/swap_parts", "guides/training", "methods")}
"""Documents whose tables hold no results but values of options."""


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_tables_are_those_of_the_data(document: Path) -> None:
    assert tables.filled(document.read_text()) == document.read_text(), "python docs/tables.py writes them anew"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_table_of_figures_names_its_data(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    without = re.findall(r"(?<! -->\n)(?<! -->\n\n)(?<!\|\n)^((?:\|.*\n)+)", text, flags=re.MULTILINE)
    of_figures = [table for table in without if FIGURE.search(table)]
    assert not of_figures or name_of(document) in SETTINGS, of_figures[0]


def test_a_wrong_figure_is_found_and_written_anew() -> None:
    text = RESULTS.read_text()
    wrong = text.replace("49.70 (45.25 to 54.15)", "49.71 (45.25 to 54.15)").replace("| 1.12 × |", "| 1.13 × |")
    assert wrong != text
    assert tables.filled(wrong) == text


def test_several_tasks_have_a_table_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "comparison.json").write_text(json.dumps(several_tasks_content()))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head = (
        "| temperatures from | mean over the tasks | by seeds alone | worst task | at or above | over T = 4 | cost |\n"
    )
    rule = f"|{' --- |' * 7}\n"
    found = tables.filled(f"<!-- data: made over tasks -->\n{head}{rule}| steady |\n| fixed, T = 1 |\n")
    steady, cold = found.splitlines()[3:]
    assert steady.startswith("| steady | +0.50 (−0.74 to +1.74) | +0.42 to +0.58 | +0.00, flowers | 3 of 3 | +1.83 (")
    assert "| −2.00, digits | 2 of 3 |" in cold
    of_task = tables.filled("<!-- data: made scenes -->\n| arm | mean |\n|---|---|\n| `wild` | |\n")
    assert "| `wild` | 23.00 (" in of_task


SECTIONS = [
    (name_of(document), section)
    for document in (ROOT / "README.md", RESULTS, ROOT / "docs" / "performance.md", ROOT / "docs" / "design.md")
    for section in re.split(r"^## ", document.read_text(), flags=re.MULTILINE)
]
NO_RESULTS = (
    r"95 % (?:bootstrap )?interval\w*",
    r"intervals are 95 %",
    r"(?:Python|torch|Gymnasium|stable-baselines3) [\d.]+",
    r"arXiv [\d.]+",
    r"T = [\d.]+",
)
"""What may stand in a text although it is in no file of results."""


@pytest.mark.parametrize(("document", "section"), SECTIONS, ids=lambda text: text.split("\n", 1)[0][:40])
def test_every_figure_in_a_text_is_in_the_data(document: str, section: str) -> None:
    assert not figures_from_nowhere(section), f"{document}: {section.splitlines()[0]}"


def test_a_figure_from_nowhere_is_found() -> None:
    text = (
        "The best, in `docs/results/digits_detection`, reaches 50.66 %, +0.96 (+0.78 to +1.14) over T = 1, with 95 % "
        "intervals."
    )
    assert figures_from_nowhere(text) == set()
    assert figures_from_nowhere(text.replace("+1.14", "+1.15")) == {"+0.96 (+0.78 to +1.15)"}
    assert figures_from_nowhere(text.replace("50.66 %", "50.69 %")) == {"50.69"}


def figures_from_nowhere(section: str) -> set[str]:
    """Return the figures of a text that are in no file of the results that it names, or of all if it names none."""
    text = re.sub(r"^```.*?^```|^\|.*?$|`[^`]*`|\]\([^)]*\)|<!--.*?-->", "", section, flags=re.DOTALL | re.MULTILINE)
    for allowed in NO_RESULTS:
        text = re.sub(allowed, "", text)
    figures = set(re.findall(_INTERVAL, text))
    figures |= {found.lstrip("+−") for found in re.findall(r"[+−]?\d+\.\d+|\d+(?= %)", re.sub(_INTERVAL, "", text))}
    named = re.findall(r"docs/results/(\w+)|<!-- data: (\w+)", section)
    known = {path.name for path in tables.RESULTS.iterdir()} | {"pretrained"}
    sources = {name for pair in named for name in pair if name in known} or known
    return figures - set().union(*(figures_of(name) for name in sources))


_INTERVAL = r"[+−]?\d+\.\d+ \([+−]?\d+\.\d+ to [+−]?\d+\.\d+\)"
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
_FEW = 10  # arms


@cache
def figures_of(name: str) -> set[str]:
    """Return the figures that a text may take from results: means, intervals, ratios and CPU minutes."""
    if name == "pretrained":
        return _written(json.loads(tables.TRAINED.read_text())["held_out"])
    folder = tables.RESULTS / name
    if (folder / tables.COMPARISON_FILE).is_file():
        return _written_of_comparison(tables.read(name))
    found: set[str] = set().union(*(_written(json.loads(file.read_text())) for file in folder.rglob("*.json")))
    for file in folder.rglob("*.csv"):
        with file.open() as rows:
            found |= _written([float(cell) for row in csv.reader(rows) for cell in row if _NUMBER.fullmatch(cell)])
    return found


def _written_of_comparison(content: dict[str, Any]) -> set[str]:
    """Also CPU minutes, how many arms would differ by chance, and the paired differences of a few arms."""
    arms, minutes = list(content["arms"]), sum(run["cpu_seconds"] or 0.0 for run in content["runs"]) / 60
    found = {f"{minutes:.0f}", f"{minutes:.1f}", f"{0.05 * (len(arms) - 1):.1f}"}
    for of_task in content["statistics"].values():
        found |= _written([runs["cost_ratio"] for runs in of_task["runs"].values()]) | _written(of_task["last"]["arms"])
    if content.get("over_tasks"):
        found |= _written(content["over_tasks"]["last"])
    accuracy = {(run["task"], run["arm"], run["seed"]): run["last_test_accuracy"] for run in content["runs"]}
    seeds = sorted({seed for _, _, seed in accuracy})
    for task in content["statistics"] if len(arms) <= _FEW else ():
        made = [arm for arm in arms if all((task, arm, seed) in accuracy for seed in seeds)]
        for one, other in itertools.permutations(made, 2):
            differences = np.array([accuracy[task, one, seed] - accuracy[task, other, seed] for seed in seeds])
            found |= _written({"mean": float(differences.mean()), "interval": student_interval(differences)})
    return found


def _written(value: Any) -> set[str]:
    """Every number in a value as texts may write it: a share in percent, or as it is; estimates also with intervals."""
    if isinstance(value, dict) and value.get("interval"):
        written = [[tables.points(end, digits) for end in (value["mean"], *value["interval"])] for digits in (1, 2)]
        return _written(value["mean"]) | {f"{mean} ({low} to {high})" for mean, low, high in written}
    if isinstance(value, dict):
        return set().union(*map(_written, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_written, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    return {f"{abs(scale * value):.{digits}f}" for scale in (1, 100) for digits in (0, 1, 2)}


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path / "html").as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "results.html", "tutorials/own_loop.html", "reference/agents.rules.html"} <= pages.keys()
    assert "DistillationRun" in pages["reference/rlkd_env.runs.html"]
    for name, page in pages.items():
        if not name.startswith("reference/"):
            named, linked = ('<code class="xref py', r'<a class="reference internal"[^>]*><code class="xref py')
            assert len(re.findall(named, page)) == len(re.findall(linked, page)), f"{name} names what is not there"
