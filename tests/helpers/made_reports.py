"""A comparison that was never run, and what the pages of reports say."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.cli import main
from experiments.compare.analysis import analyze
from experiments.compare.over_tasks import analyze_over_tasks
from experiments.compare.rows import Row
from experiments.report.comparison.loading import ComparisonRecord
from experiments.report.comparison.page import comparison_page
from experiments.report.run.loading import RunRecord
from experiments.report.run.page import run_page

CREDIT = {
    "uniform": {"pearson": None, "spearman": None, "cost_ratio": 1.05},
    "return_decomposition": {"pearson": 0.06, "spearman": 0.04, "cost_ratio": 1.34},
    "gradient": {"pearson": 0.96, "spearman": 0.95, "cost_ratio": 1.64},
    "counterfactual": {"pearson": 1.0, "spearman": 1.0, "cost_ratio": 2.42},
}


def estimate(mean: float, half: float | None = None) -> dict[str, Any]:
    interval = None if half is None else [mean - half, mean + half]
    return {"mean": mean, "count": 4, "interval": interval, "bootstrap_interval": interval}


ARMS = {
    "T=4": (0.9412, 0.0, 1.0),
    "better": (0.9475, 0.0063, 1.21),
    "same": (0.9401, -0.0011, 1.07),
    "worse": (0.9, -0.0412, 0.98),
}
"""Mean accuracy, difference to T=4, and cost of every arm; every interval is ± 0.4 points."""


def history(level: float, temperature: float, epochs: int = 12) -> dict[str, Any]:
    """A history whose validation accuracy goes up to a level."""
    rows = [
        {
            "epoch": epoch,
            "step": 4 * epoch,
            "seconds": 0.1 * epoch,
            "validation_accuracy": level - 0.5 / epoch,
            "validation_loss": 1.0 / epoch,
            "training_accuracy": level,
            "temperature_mean": temperature,
            "temperature_quantiles": [temperature] * 5,
            "reward": 0.01,
        }
        for epoch in range(1, epochs + 1)
    ]
    return {"version": 1, "epochs": rows}


def comparison_content() -> dict[str, Any]:
    """What comparison.json holds after four seeds of four arms."""
    of_student = {
        "best_fixed": "T=4",
        "arms": {
            name: {
                "mean": estimate(mean, 0.005),
                "difference": estimate(difference, 0.004 if name != "T=4" else 0.0),
                "regret": estimate(difference, 0.004 if name != "T=4" else 0.0),
                "probability_of_improvement": 0.75,
            }
            for name, (mean, difference, _) in ARMS.items()
        },
    }
    runs = {
        name: {
            "count": 4,
            "diverged": 0,
            "failed": 0,
            "seconds": 9.0 * cost,
            "cost_ratio": cost,
            "agent_share": 0.1,
            "mean_temperature": 4.0,
        }
        for name, (*_, cost) in ARMS.items()
    }
    rows = [
        {"task": "digits", "arm": arm, "seed": seed, "error": "", "folder": f"runs/digits/{arm}/seed{seed}"}
        for arm in ARMS
        for seed in range(4)
    ]
    return {
        "version": 1,
        "settings": {"epochs": 12},
        "tasks": {"digits": {}},
        "arms": {name: {"rule": "fixed"} for name in ARMS},
        "baseline": "T=4",
        "planned_runs": 16,
        "runs": rows,
        "statistics": {"digits": {"baseline": "T=4", "runs": runs, "last": of_student, "chosen": of_student}},
        "versions": {"torch": torch.__version__},
    }


GAINS = {
    "T=1": {"digits": -0.02, "scenes": 0.0, "flowers": 0.0},
    "T=4": {"digits": 0.0, "scenes": -0.01, "flowers": -0.03},
    "steady": {"digits": 0.01, "scenes": 0.005, "flowers": 0.0},
    "wild": {"digits": 0.02, "scenes": -0.4, "flowers": 0.05},
    "rare": {"digits": 0.03},
}
"""What arms of a comparison over three tasks are above the best fixed temperature of each."""


def several_tasks_content() -> dict[str, Any]:
    """What comparison.json holds after three seeds of :data:`GAINS`, whose regrets differ by ± 0.1 points."""
    rows = [
        Row(arm, task, seed, 0.6 + 0.03 * seed + gain + jitter, 0.6, 1, 2.0, 2.0)
        for arm, gains in GAINS.items()
        for task, gain in gains.items()
        for seed, jitter in enumerate((-0.001, 0.0, 0.001) if arm in ("steady", "wild", "rare") else (0.0,) * 3)
    ]
    tasks = {"digits": {}, "scenes": {"dataset": "digits_detection"}, "flowers": {"dataset": "arrays"}}
    statistics = analyze(rows, dict.fromkeys(tasks, ("T=1", "T=4")), "T=4")
    return {
        "version": 1,
        "settings": {},
        "tasks": tasks,
        "arms": {arm: {"rule": "fixed"} if arm in ("T=1", "T=4") else {"rule": "lskd"} for arm in GAINS},
        "baseline": "T=4",
        "planned_runs": len(rows),
        "runs": [asdict(row) | {"folder": f"runs/{row.task}/{row.arm}/seed{row.seed}"} for row in rows],
        "statistics": statistics,
        "over_tasks": analyze_over_tasks(statistics),
        "versions": {"torch": torch.__version__},
    }


class Reader(HTMLParser):
    """Collects what a page loads, its text, and the attributes of its elements by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self._is_text = True
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.setdefault(tag, []).append(dict(attrs))
        self._is_text = tag not in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._is_text = True

    def handle_data(self, data: str) -> None:
        if self._is_text:
            self.text.append(data)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shown(html: str) -> str:
    """The text of a page."""
    return " ".join(" ".join(Reader(html).text).split())


def words_of(folder: Path, **files: Path) -> str:
    """What a report would say, without its figures."""
    is_run = (folder / "config.json").exists()
    page = run_page(RunRecord.read(folder, **files)) if is_run else comparison_page(ComparisonRecord.read(folder))
    return shown(replace(page, sections=[replace(one, drawings=[]) for one in page.sections]).html()) + " ".join(
        drawing.caption for drawing in page.drawings
    )


def drawn(drawing: Any) -> Any:
    """The axes of a drawing."""
    assert drawing is not None
    return drawing.figure.axes[0]


def assert_refused(folder: Path, message: str, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    capsys.readouterr()
    assert main(["report", str(folder), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (folder / "report.html").exists()
    assert not (folder / "report").exists()
