"""``rlkd bench`` measures, tells and refuses; how fast things are is not for tests."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import main, parse
from experiments.commands.bench import arms
from experiments.commands.bench.arms import ARMS, DEFAULT_ARMS, Bench, arms_called
from experiments.commands.bench.benched_run import build_bench_run
from experiments.commands.bench.rounds import Arm
from experiments.config import BenchConfig
from rlkd_env.credit.return_decomposition import ReturnDecomposition
from rlkd_env.methods import METHODS
from rlkd_env.runs.run import DistillationRun

QUICK = ("--rounds", "2", "--steps", "16", "--device", "cpu")


def bench(folder: Path, *options: str) -> dict[str, Any]:
    """Bench quickly; the exit code is told with the rest."""
    code = main(["bench", *QUICK, "--out", str(folder), "--overwrite", *options])
    return {"code": code, **json.loads((folder / "bench.json").read_text())}


def register(monkeypatch: pytest.MonkeyPatch, name: str, create: Any) -> None:
    monkeypatch.setattr(ARMS, "_parts", {**ARMS._parts, name: create})


@pytest.mark.slow
def test_every_arm_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = bench(tmp_path)
    assert (told["code"], told["left_out"], told["failed"]) == (0, {}, {})
    assert set(told["arms"]) == {"plain_kd", *DEFAULT_ARMS}
    for name, figures in told["arms"].items():
        assert figures["students"] == (int(name.partition("_")[2]) if name.startswith("stacked") else 1)
        assert figures["images_per_s"] == pytest.approx(64 * figures["students"] * figures["steps_per_s"])
        assert figures["ratio_min"] <= figures["ratio_to_plain_kd"] <= figures["ratio_max"]
        assert "ratio_to_floor" not in figures  # of a CPU nothing is launched
    assert told["arms"]["plain_kd"]["ratio_to_plain_kd"] == 1.0
    assert told["arms"]["fixed"]["rounds"] == 2
    assert {"teacher", "backward", "reward"} <= set(told["parts_ms"])
    assert told["gymnasium_vector_steps_per_s"] > 0
    assert told["settings"]["dataset"] == "digits"
    assert "ppo_learning_last_layer" in capsys.readouterr().out
    assert main(["bench", *QUICK, "--out", str(tmp_path)]) == 2
    assert "another measurement" in capsys.readouterr().err


def test_the_shared_reward_is_not_shared_out_behind_the_benchs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[ReturnDecomposition] = []
    learn = ReturnDecomposition.learn
    monkeypatch.setattr(ReturnDecomposition, "learn", lambda self, reward: learned.append(self) or learn(self, reward))
    config = parse(["bench", *QUICK])
    assert isinstance(config, BenchConfig)
    for name, updates in (("ppo_learning", 0), ("ppo_learning_return_decomposition", 64)):
        for _, advance in ARMS[name](Bench(config, build_bench_run(config))).phases:
            advance(64)
        assert len(learned) == updates


@pytest.mark.parametrize(("lever", "engine"), [("contiguous", (True, False)), ("float32", (False, True))])
def test_stacked_students_are_measured_in_other_orders_and_formats(
    lever: str, engine: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[DistillationRun] = []
    create = arms.create_parallel_runs
    monkeypatch.setattr(arms, "create_parallel_runs", lambda run, *given: built.append(run) or create(run, *given))
    options = ("--student", "cnn4", "--precision", "bfloat16", "--memory-format", "channels_last")
    config = parse(["bench", *QUICK, *options])
    assert isinstance(config, BenchConfig)
    arm = ARMS[f"stacked_8_{lever}"](Bench(config, build_bench_run(config)))
    assert (arm.students, f"stacked_8_{lever}" in DEFAULT_ARMS) == (8, False)
    for _, advance in arm.phases:
        advance(1)
    made = built[0].task.engine
    assert (made.precision == "bfloat16", made.channels_last) == engine


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    arms = bench(tmp_path, "--memory", "--arms", "fixed", "plain_kd_pytorch_defaults")["arms"]
    assert set(arms) == {"plain_kd", "fixed", "plain_kd_pytorch_defaults"}
    assert arms["plain_kd_pytorch_defaults"]["steps_per_s"] > 0
    assert all(100 < figures["peak_memory_mb"] < 8000 for figures in arms.values())


@pytest.mark.slow
def test_an_arm_that_fails_is_told_of_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(bench: Bench) -> Arm:
        raise RuntimeError("out of memory\nat length")

    register(monkeypatch, "greedy", fail)
    told = bench(tmp_path, "--arms", "greedy", "fixed")
    assert (told["code"], told["failed"], set(told["arms"])) == (1, {"greedy": "out of memory"}, {"plain_kd", "fixed"})
    assert "greedy failed: out of memory\n" in capsys.readouterr().out


@pytest.mark.slow
def test_what_cannot_be_stacked_or_has_no_time_is_left_out_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = bench(tmp_path, "--curriculum-phases", "3", "--arms", "stacked_8", "fixed")
    assert (told["code"], list(told["left_out"]), set(told["arms"])) == (0, ["stacked_8"], {"plain_kd", "fixed"})
    assert "stacked_8 left out: the runs cannot be stacked: exploration and a curriculum" in capsys.readouterr().out
    assert main(["bench", "--device", "cpu", "--seconds", "1e-3", "--out", str(tmp_path), "--overwrite"]) == 0
    assert "fixed left out: the time is over" in capsys.readouterr().out


@pytest.mark.slow
def test_no_arm_is_kept_while_the_next_one_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    earlier: weakref.WeakSet[Any] = weakref.WeakSet()
    create = ARMS["ppo_learning"]

    def watched(bench: Bench) -> Arm:
        alive.append(len(earlier))
        arm = create(bench)
        earlier.add(arm.phases[0][1].__self__)  # the learner, which has agent, environment and run
        return arm

    register(monkeypatch, "first", watched)
    register(monkeypatch, "second", watched)
    assert bench(tmp_path, "--arms", "first", "second")["code"] == 0
    assert alive == [0, 0]


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


@pytest.mark.slow
def test_methods_have_arms_and_those_for_another_task_are_left_out(tmp_path: Path) -> None:
    told = bench(tmp_path, "--arms", "method_at", "method_kdsvd", "method_fpn", "--student", "digits_cnn")
    assert set(told["arms"]) == {"plain_kd", "method_at", "method_kdsvd"}
    assert told["left_out"] == {"method_fpn": told["left_out"]["method_fpn"]}
    assert "is not for classification" in told["left_out"]["method_fpn"]
    assert arms_called(["methods", "method_at", "fixed"]) == [*(f"method_{name}" for name in METHODS), "fixed"]
