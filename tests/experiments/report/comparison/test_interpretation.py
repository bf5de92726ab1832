"""What a comparison's page reads out of its intervals."""

from __future__ import annotations

import json
from pathlib import Path

from made_reports import (
    comparison_content,
    estimate,
)

from experiments.report.comparison.interpretation import describe
from experiments.report.comparison.loading import ComparisonRecord


def test_the_reading_calls_better_only_what_is_clear_of_zero(comparison: Path) -> None:
    (task,) = ComparisonRecord.read(comparison).tasks
    words = describe(task)
    assert "clearly better is better +0.63 (+0.23 to +1.03);" in words
    assert "clearly worse is worse −4.12 (−4.52 to −3.72);" in words
    assert "1 arm is not told apart from it." in words
    content = comparison_content()
    for of_arm in content["statistics"]["digits"]["last"]["arms"].values():
        of_arm["difference"] = estimate(0.001, 0.004)
    (comparison / "comparison.json").write_text(json.dumps(content))
    words = describe(ComparisonRecord.read(comparison).tasks[0])
    assert "; no arm is told apart from it." in words
    assert "better" not in words
