"""What the page of a comparison says, finished or not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from made_reports import (
    ARMS,
    Reader,
    comparison_content,
    estimate,
    shown,
    words_of,
)

from experiments.compare.analysis import analyze
from experiments.compare.rows import Row
from experiments.compare.table import print_tables
from experiments.report.comparison.loading import ComparisonRecord
from experiments.report.comparison.page import comparison_page

COMPARISON_FIGURES = {"differences_digits", "cost_digits", "accuracy_digits", "temperature_digits"}


def test_a_comparisons_page_tells_the_files_statistics(reports: dict[str, Path]) -> None:
    html = (reports["comparison"] / "report.html").read_text()
    text = shown(html)
    for name, (mean, difference, cost) in ARMS.items():
        assert name in text
        assert f"{100 * mean:.2f} ({100 * (mean - 0.005):.2f} to {100 * (mean + 0.005):.2f})" in text
        assert f"{cost:.2f} ×" in text
        if name != "T=4":
            words = f"{100 * difference:+.2f} ({100 * (difference - 0.004):+.2f} to {100 * (difference + 0.004):+.2f})"
            assert words.replace("-", "−") in text
    assert "16 of 16 runs" in text
    assert {path.stem for path in (reports["comparison"] / "report").iterdir()} == COMPARISON_FIGURES
    heads = [head["data-key"] for head in Reader(html).attributes["th"] if "data-key" in head]
    assert heads == ["better", "T=4", "same", "worse"]


def test_an_unfinished_comparison_is_shown_as_far_as_it_came(comparison: Path) -> None:
    content = comparison_content()
    content["runs"] = [row for row in content["runs"] if row["seed"] == 0]
    content["runs"][0]["error"] = "out of memory"
    figures = content["statistics"]["digits"]["last"]["arms"]["same"]
    for name in ("mean", "difference", "regret"):
        figures[name] = estimate(figures[name]["mean"])
    content["statistics"]["digits"]["last"]["arms"]["worse"] |= {"mean": None, "difference": None, "regret": None}
    (comparison / "comparison.json").write_text(json.dumps(content))
    text = words_of(comparison)
    assert "12 of 16 runs are missing" in text
    assert "A run failed: digits/T=4/seed0: out of memory" in text
    assert "too few seeds for a conclusion have same, worse." in text
    assert " nan" not in text.lower()
    content["statistics"] = {}
    (comparison / "comparison.json").write_text(json.dumps(content))
    assert "nothing can be compared yet" in words_of(comparison)


def test_many_arms_stay_readable(comparison: Path) -> None:
    content = comparison_content()
    statistics = content["statistics"]["digits"]
    for number in range(20):
        name = f"ppo-calibrator_{number}"
        statistics["runs"][name] = statistics["runs"]["same"]
        statistics["last"]["arms"][name] = statistics["last"]["arms"]["same"]
        content["runs"] += [row | {"arm": name} for row in content["runs"][:4]]
    (comparison / "comparison.json").write_text(json.dumps(content))
    assert "Grey: the 18 other arms." in words_of(comparison)


def test_a_comparison_of_detectors_speaks_of_ap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row(arm, "scenes", seed, accuracy + 0.01 * seed, accuracy, 3, 2.0, metric="AP")
        for arm, accuracy in (("T=4", 0.3), ("ppo", 0.35))
        for seed in range(3)
    ]
    rows.insert(0, Row("T=4", "scenes", 3, error="out of memory"))
    statistics = analyze(rows, {"scenes": ["T=4"]}, "T=4")
    assert statistics["scenes"]["metric"] == "AP"
    print_tables(statistics)
    assert "scenes, last epoch: test AP in %" in capsys.readouterr().out
    content = {
        "version": 1,
        "planned_runs": 7,
        "tasks": {"scenes": {}},
        "runs": [asdict(row) | {"folder": f"runs/{row.arm}/{row.seed}"} for row in rows],
        "statistics": statistics,
    }
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    page = comparison_page(ComparisonRecord.read(tmp_path))
    table = page.sections[0].table
    assert table is not None
    assert table.title == "Test AP"
    assert list(table.columns)[1] == "AP, last epoch, %"
    assert "T=4 reaches an AP of 31.00 % on the test images" in page.interpretation[0]
    figure = page.drawings[0].figure.axes[0]
    assert figure.get_xlabel() == "test AP over T=4, points"
    html = page.html()
    assert "accuracy" not in html[html.index("<main>") : html.index("Details")].replace("id=", "")


def test_two_seeds_are_too_few_for_an_interval(comparison: Path) -> None:
    content = comparison_content()
    arms = content["statistics"]["digits"]["last"]["arms"]
    for arm in arms.values():
        for name in ("mean", "difference", "regret"):
            arm[name] = {**arm[name], "count": 2, "interval": [-0.41, 1.04]}
    (comparison / "comparison.json").write_text(json.dumps(content))
    assert "104.00" not in words_of(comparison)
    assert "too few seeds for a conclusion have better, same, worse" in words_of(comparison)
    for arm in arms.values():
        for name in ("mean", "difference", "regret"):
            arm[name] = {**arm[name], "count": 3}
    (comparison / "comparison.json").write_text(json.dumps(content))
    assert "(0.00 to 100.00)" in words_of(comparison)  # accuracies have bounds


def test_a_student_without_a_teacher_has_no_temperature(comparison: Path) -> None:
    content = comparison_content()
    content["arms"]["same"] = {"method": "cross_entropy", "rule": "fixed"}
    (comparison / "comparison.json").write_text(json.dumps(content))
    (task,) = ComparisonRecord.read(comparison).tasks
    assert task.arm("same").mean_temperature is None
    assert task.arm("worse").mean_temperature == 4.0


def test_ten_arms_are_shown_and_the_rest_is_a_click_away(comparison: Path) -> None:
    content = comparison_content()
    statistics = content["statistics"]["digits"]
    for number in range(20):
        statistics["runs"][f"arm{number}"] = statistics["runs"]["same"]
        statistics["last"]["arms"][f"arm{number}"] = statistics["last"]["arms"]["same"]
        statistics["chosen"]["arms"][f"arm{number}"] = statistics["chosen"]["arms"]["same"]
    (comparison / "comparison.json").write_text(json.dumps(content))
    page = comparison_page(ComparisonRecord.read(comparison))
    shown, whole = (one for one in page.drawings if one.name.startswith("differences"))
    assert [len(one.figure.axes[0].get_yticklabels()) for one in (shown, whole)] == [10, 23]
    assert whole in page.sections[0].hidden
    assert "Not shown, as they are further down: 13." in shown.caption
