"""How the way of computing several runs is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel import ParallelRuns, choice, create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.training.captured.update import STEPS_TO_CAPTURE

MakeRun = Callable[..., DistillationRun]


@pytest.mark.slow
def test_fully_connected_students_are_stacked_by_choice_which_is_made_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    assert (
        create_parallel_runs(run, 16).mode == "stacked"
    )  # 8 times as fast, so that no busy machine can tell otherwise
    monkeypatch.setattr(choice, "_measure", lambda *_: pytest.fail("measured again"))
    assert create_parallel_runs(run.sibling(), 16).mode == "stacked"
    with pytest.raises(pytest.fail.Exception):
        create_parallel_runs(run, 17)


@pytest.mark.parametrize(("stacked_seconds", "expected"), [(0.39, "serial"), (0.35, "stacked")])
def test_another_way_is_taken_only_if_it_saves_a_tenth_of_one_after_the_other(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, stacked_seconds: float, expected: str
) -> None:
    seconds = {"serial": 0.2, "stacked": stacked_seconds, "workers": 100.0}  # of one after the other: for 2 runs of 4
    monkeypatch.setattr(choice, "seconds_per_step", lambda runs, *_, **__: seconds[runs.mode])
    assert choice._measure(make_run(), 4, one_seed=False) == expected


@pytest.mark.parametrize(("seconds_of_two", "expected"), [(2.1, "serial"), (1.9, "stacked")])
def test_long_steps_are_stacked_only_if_two_of_them_gain(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, seconds_of_two: float, expected: str
) -> None:
    def seconds(runs: ParallelRuns, *_: object, **__: object) -> float:
        if runs.mode == "stacked":
            return seconds_of_two if runs.num_runs == 2 else 3.0
        return 2.0 if runs.mode == "serial" else 100.0

    monkeypatch.setattr(choice, "seconds_per_step", seconds)
    assert choice._measure(make_run(), 4, one_seed=False) == expected


def test_runs_that_a_device_has_not_the_memory_for_are_not_chosen(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(runs: ParallelRuns, *_: object, **__: object) -> float:
        if runs.mode == "stacked":
            raise torch.OutOfMemoryError
        return 0.2 if runs.mode == "serial" else 100.0

    monkeypatch.setattr(choice, "seconds_per_step", seconds)
    assert choice._measure(make_run(), 4, one_seed=False) == "serial"


def test_the_earlier_name_of_serial_runs_is_understood(make_run: MakeRun) -> None:
    assert create_parallel_runs(make_run(), 2, "sequence").mode == "serial"


@pytest.mark.slow
def test_choosing_leaves_the_global_generator_and_the_template_alone(make_run: MakeRun) -> None:
    run = make_run(batch_size=8, epochs=1)
    before = torch.get_rng_state()
    runs = create_parallel_runs(run, 2)
    runs.reset([0, 1])
    runs.students()
    assert torch.equal(torch.get_rng_state(), before)
    assert run.seed == -1
    assert not hasattr(run, "outputs")


@pytest.mark.parametrize(("captured", "warm_up"), [(False, 1), (True, STEPS_TO_CAPTURE)])
def test_steps_that_only_warm_up_or_capture_do_not_count(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, captured: bool, warm_up: int
) -> None:
    run = make_run(epochs=30)
    run.task.engine = replace(run.task.engine, captured=captured)
    runs = create_parallel_runs(run, 2, "stacked")
    step, made, clock = runs.step, [0], [0.0]

    def timed(temperature: Temperature) -> object:
        made[0] += 1
        clock[0] += 0.01 if made[0] > warm_up else 0.5
        return step(temperature)

    monkeypatch.setattr(runs, "step", timed)
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])
    assert choice.seconds_per_step(runs) == pytest.approx(0.01)
