"""A run and a comparison, and their reports, which many tests look at and none changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_detections import tell_of_detection, write_example
from made_reports import (
    ARMS,
    CREDIT,
    comparison_content,
    history,
)

from experiments.cli import main


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as rlkd distill leaves it."""
    out = tmp_path_factory.mktemp("runs") / "ppo"
    options = ["--epochs", "20", "--warmup-epochs", "2", "--student-alone", "--no-progress", "--device", "cpu"]
    assert main(["distill", "--agent", "ppo", "--out", str(out), *options]) == 0
    (out / "credit.json").write_text(json.dumps(CREDIT))
    return out


@pytest.fixture
def run(real_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(real_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def real_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's folder."""
    folder, content = tmp_path_factory.mktemp("comparisons") / "digits", comparison_content()
    for row in content["runs"]:
        run = folder / row["folder"]
        run.mkdir(parents=True)
        made = history(ARMS[row["arm"]][0] + 0.001 * row["seed"], 4.0)
        (run / "history.json").write_text(json.dumps(made))
    (folder / "comparison.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def comparison(real_comparison: Path, tmp_path: Path) -> Path:
    """A copy of the comparison that a test may change."""
    return Path(shutil.copytree(real_comparison, tmp_path / "comparison"))


@pytest.fixture(scope="session")
def reports(real_run: Path, real_comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the reports of all kinds; the run and the comparison stay as they are."""
    detection = Path(shutil.copytree(real_run, tmp_path_factory.mktemp("runs") / "detection"))
    tell_of_detection(detection)
    write_example(detection)
    folders = {}
    for kind, folder in {"run": real_run, "comparison": real_comparison, "detection": detection}.items():
        folders[kind] = tmp_path_factory.mktemp("report")
        assert main(["report", str(folder), "--out", str(folders[kind])]) == 0
    return folders
