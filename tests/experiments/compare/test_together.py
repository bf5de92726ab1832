"""Runs of a comparison that are made as one, and those that are not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from experiments.cli import main, parse
from experiments.compare import together
from experiments.compare.plan import PlannedRun, make_plan
from experiments.compare.together import as_units, make_unit
from experiments.compare.work import new_memo
from experiments.config import CompareConfig

ARMS = (
    *("--rules", "anneal", "ctkd", "random", "--fixed-temperatures", "2", "--agents", "ppo", "--student-alone"),
    *("--arms", "dkd", "{method: dkd, rule: anneal}", "pair", "{rule: fixed, population: 2}"),
)
QUICK = ("--epochs", "3", "--warmup-epochs", "1", "--device", "cpu", "--seeds", "2")


def planned(out: Path, *options: str) -> list[PlannedRun]:
    config = parse(["compare", *ARMS, *QUICK, *options, "--out", str(out)])
    assert isinstance(config, CompareConfig)
    return make_plan(config).runs


def names(units: list[together.Unit]) -> list[set[str]]:
    return [{run.name.removeprefix("digits/") for run in unit} for unit in units]


def test_runs_are_joined_that_differ_in_their_rule_alone(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    found = names(as_units(runs, together=True))
    for seed in (0, 1):
        assert {f"{arm}/seed{seed}" for arm in ("T=2", "T=4", "anneal", "random")} in found
    assert {len(unit) for unit in found} == {1, 4}
    assert sum(map(len, found)) == len(runs)
    assert all(len(unit) == 1 for unit in as_units(runs, together=False))


def test_tasks_are_not_joined(tmp_path: Path) -> None:
    runs = planned(tmp_path, "--tasks", "few", "{train_images: 100}", "many", "{}")
    for unit in as_units(runs, together=True):
        assert len({(run.task, run.seed) for run in unit}) == 1


def test_a_run_that_was_interrupted_and_runs_with_curves_go_alone(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    stopped = next(run for run in runs if run.arm == "T=2")
    (stopped.config.folder / "checkpoint").mkdir(parents=True)
    assert {f"{stopped.arm}/seed{stopped.seed}"} in names(as_units(runs, together=True))
    drawn = planned(tmp_path, "--tensorboard")
    assert all(len(unit) == 1 for unit in as_units(drawn, together=True))


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stack whatever can be, however busy the machine."""
    monkeypatch.setattr(together, "pays_off", lambda sessions: True)


@pytest.mark.usefixtures("stacks")
def test_epochs_are_counted_once_and_every_run_has_its_outcome(tmp_path: Path) -> None:
    unit = max(as_units(planned(tmp_path), together=True), key=len)
    counted = list[int]()
    outcomes = make_unit(unit, 1, counted.append, new_memo())
    assert [outcome.run for outcome in outcomes] == list(unit)
    assert sum(counted) == 3 * len(unit)
    for run in unit:
        summary = run.summary()  # which is that of the run's own settings
        assert summary is not None
        assert summary["together"] == len(unit)


@pytest.mark.usefixtures("stacks")
def test_where_one_fails_every_run_is_made_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(together, "write_summary", fail)
    unit = max(as_units(planned(tmp_path), together=True), key=len)
    counted = list[int]()
    outcomes = make_unit(unit, 1, counted.append, new_memo())
    assert sum(counted) == 3 * len(unit)
    for outcome in outcomes:
        assert outcome.summary is not None
        assert "together" not in outcome.summary


@pytest.mark.parametrize("executor", ["serial", pytest.param("processes", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("stacks")
def test_a_comparison_made_together_is_complete_and_knows_no_cost(tmp_path: Path, executor: str) -> None:
    options = ("--rules", "anneal", "--fixed-temperatures", "2", "--epochs", "3", "--device", "cpu", "--seeds", "2")
    given = ["compare", *options, "--no-progress", "--executor", executor, "--out", str(tmp_path)]
    assert main([*given, "--together"]) == 0
    with (tmp_path / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    made = {row["seconds"] for row in rows}
    told = json.loads((tmp_path / "comparison.json").read_text())["statistics"]["digits"]
    if executor == "serial":  # worker processes measure for themselves whether it pays
        assert made == {""}
        assert told["runs"]["anneal"]["cost_ratio"] is None
    assert main(given) == 0  # and continues without being told, as every run is known by its settings
