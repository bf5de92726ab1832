"""``rlkd bench`` measures, tells and refuses; how fast things are is not for tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.commands.bench.arms import DEFAULT_ARMS
from experiments.commands.bench.command import _interleave

QUICK = ("--rounds", "2", "--steps", "16", "--device", "cpu")


@pytest.mark.slow
def test_every_arm_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *QUICK, "--out", str(tmp_path), "--no-memory"]) == 0
    told = json.loads((tmp_path / "bench.json").read_text())
    assert set(told["arms"]) == set(DEFAULT_ARMS)
    for figures in told["arms"].values():
        assert figures["images_per_s"] == pytest.approx(64 * figures["steps_per_s"])
        assert figures["ratio_min"] <= figures["ratio_to_plain_kd"] <= figures["ratio_max"]
    assert told["arms"]["plain_kd"]["ratio_to_plain_kd"] == 1.0
    assert {"teacher", "backward", "reward"} <= set(told["parts_ms"])
    assert told["gymnasium_vector_steps_per_s"] > 0
    assert told["settings"]["dataset"] == "digits"
    assert "ppo_learning_last_layer" in capsys.readouterr().out
    assert main(["bench", *QUICK, "--out", str(tmp_path)]) == 2
    assert "another measurement" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    assert main(["bench", *QUICK, "--out", str(tmp_path), "--arms", "fixed", "plain_kd_pytorch_defaults"]) == 0
    arms = json.loads((tmp_path / "bench.json").read_text())["arms"]
    assert set(arms) == {"plain_kd", "fixed", "plain_kd_pytorch_defaults"}
    assert arms["plain_kd_pytorch_defaults"]["steps_per_s"] > 0
    assert all(100 < figures["peak_memory_mb"] < 8000 for figures in arms.values())


def test_arms_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    arms = {name: (lambda steps, name=name: order.append(f"{name}{steps}")) for name in "ab"}
    seconds = _interleave(arms, rounds=2, steps=3)
    assert order == ["a3", "b3", "b3", "a3", "a3", "b3"]
    assert [len(times) for times in seconds.values()] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "plain"], "unknown arm 'plain'. Did you mean 'plain_kd'"),
        (["--rounds", "0"], "at least 1"),
        (["--preset", "nothing"], "unknown preset"),
        (["--method", "sp", "--random-images", "--student", "resnet8"], "bench a method of logits"),
    ],
)
def test_bad_input_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--device", "cpu", "--out", str(tmp_path / "b"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
