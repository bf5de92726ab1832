"""``rlkd bench`` measures, tells and refuses; how fast things are is not for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.rules.create import FixedTemperature
from experiments.cli import main, parse
from experiments.commands.bench.arms import DEFAULT_ARMS, build_bench_run
from experiments.commands.bench.command import _interleave
from experiments.commands.bench.plain_kd import plain_kd
from experiments.config import BenchConfig

QUICK = ("--rounds", "2", "--steps", "16", "--device", "cpu")


def bench_config(*arguments: str) -> BenchConfig:
    config = parse(["bench", "--device", "cpu", *arguments])
    assert isinstance(config, BenchConfig)
    return config


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


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    assert main(["bench", *QUICK, "--out", str(tmp_path), "--arms", "fixed", "plain_kd_pytorch_defaults"]) == 0
    arms = json.loads((tmp_path / "bench.json").read_text())["arms"]
    assert set(arms) == {"plain_kd", "fixed", "plain_kd_pytorch_defaults"}
    assert arms["plain_kd_pytorch_defaults"]["steps_per_s"] > 0
    assert all(100 < figures["peak_memory_mb"] < 8000 for figures in arms.values())


def test_random_images_need_no_data() -> None:
    config = bench_config("--preset", "cifar100/resnet56-resnet20/dkd", "--random-images", "--student", "resnet8")
    run = build_bench_run(config)
    assert run.splits.image_shape == (3, 32, 32)
    assert sum(parameter.numel() for parameter in run.teacher.parameters()) == 861_620
    assert config.run.distillation.method == "dkd"


def test_arms_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    arms = {name: (lambda steps, name=name: order.append(f"{name}{steps}")) for name in "ab"}
    seconds = _interleave(arms, rounds=2, steps=3)
    assert order == ["a3", "b3", "b3", "a3", "a3", "b3"]
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_plain_kd_is_what_a_run_at_one_temperature_does() -> None:
    """The baseline is no straw man: it makes the same updates as the run."""
    config = bench_config("--precision", "float32")
    run = build_bench_run(config)
    run.reset(0)
    torch.manual_seed(0)
    baseline_run = build_bench_run(config)
    students: list[torch.nn.Module] = []
    create = baseline_run.create_student

    def remember() -> torch.nn.Module:
        torch.manual_seed(0)
        students.append(create())
        return students[-1]

    baseline_run.create_student = remember
    plain_kd(baseline_run, baseline_run.task.engine)(12)
    run.advance(FixedTemperature(4.0), 12)
    for plain, ours in zip(students[-1].parameters(), run.networks.student.parameters(), strict=True):
        np.testing.assert_allclose(plain.detach(), ours.detach(), rtol=1e-3, atol=1e-5)


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
