"""What the page of a run says and shows of a population."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_reports import change, shown, words_of

from experiments.cli import main
from experiments.report.run.loading import RunRecord
from experiments.report.run.population import population_sections
from rlkd_env.errors import UsageError

OPTIONS = ("--epochs", "8", "--no-progress", "--no-tensorboard", "--device", "cpu", "--run-mode", "stacked")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "population"
    assert main(["distill", "--rule", "fixed", "--population", "3", "--out", str(out), *OPTIONS]) == 0
    return out


@pytest.fixture
def population(made: Path, tmp_path: Path) -> Path:
    """A copy of the population that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "population"))


def test_the_page_tells_all_members_and_which_of_them_won(population: Path) -> None:
    assert main(["report", str(population)]) == 0
    text = shown((population / "report.html").read_text())
    told = json.loads((population / "summary.json").read_text())["population"]
    best = next(member for member in told["members"] if member["name"] == told["best"])
    assert ", a population of 3" in text
    words = f"The member {told['best']} won: after epoch {best['epoch']} its accuracy on the validation images was "
    assert f"{words}{100 * best['val_accuracy']:.2f} %" in text
    for member in told["members"]:
        assert member["name"] in text
        for key in ("val", "test", "last_val", "last_test"):
            assert f"{100 * member[f'{key}_accuracy']:.2f}" in text
    for candidate in ("average-weights", "ensemble"):
        assert f"{100 * told['candidates'][candidate]['test_accuracy']:.2f}" in text
    pictures = {path.stem for path in (population / "report").iterdir()}
    assert {"population_over_epochs", "population_by_temperature"} <= pictures


def test_every_member_has_a_curve_and_the_winner_the_thickest(made: Path) -> None:
    record = RunRecord.read(made)
    (section,) = population_sections(record)
    axes = section.shown[0].figure.axes[0]
    curves = {line.get_label(): line for line in axes.lines}
    best = f"{record.population['best']} (won)"
    assert curves.keys() == {best if best.startswith(f"{name} ") else name for name in record.members}
    assert max(curves, key=lambda name: curves[name].get_linewidth()) == best
    for name, history in record.members.items():
        drawn = curves.get(name, curves[best]).get_ydata()
        assert drawn.tolist() == (100 * history["validation_accuracy"]).tolist()


def test_a_better_member_on_the_test_images_is_told_in_hindsight(population: Path) -> None:
    summary = json.loads((population / "summary.json").read_text())
    members = summary["population"]["members"]
    for member in members:
        member["test_accuracy"] = 0.5 if member["name"] == summary["population"]["best"] else 0.25
    members[-1 if members[-1]["name"] != summary["population"]["best"] else 0]["test_accuracy"] = 0.75
    change(population / "summary.json", population=summary["population"])
    assert "would have been best there, with 75.00 %" in words_of(population)
    for member in members:
        member["test_accuracy"] = None
    change(population / "summary.json", population=summary["population"])
    assert "Of the test images" not in words_of(population)


def test_members_that_are_alike_are_not_drawn_by_temperature(population: Path) -> None:
    told = json.loads((population / "summary.json").read_text())["population"]
    for member in told["members"]:
        member["mean_temperature"] = 4.0
    change(population / "summary.json", population=told)
    (section,) = population_sections(RunRecord.read(population))
    assert [drawing.name for drawing in section.shown] == ["population_over_epochs"]


def test_an_unfinished_population_shows_its_curves(population: Path) -> None:
    (population / "summary.json").unlink()
    (section,) = population_sections(RunRecord.read(population))
    assert section.table is None
    assert len(section.shown) == 1
    assert "This run has not finished" in words_of(population)


def test_a_run_of_one_student_has_no_such_section(real_run: Path) -> None:
    assert population_sections(RunRecord.read(real_run)) == []


def test_members_that_are_no_histories_are_refused(population: Path) -> None:
    change(population / "history.json", members=[1, 2])
    with pytest.raises(UsageError, match="members is damaged"):
        RunRecord.read(population)
