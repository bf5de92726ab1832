"""Batch rewards: measured after the update, paired, and telescoping over a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from agents.rules.simple import FixedTemperature
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.reward import Measurement, Reward, RewardMeter
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


def rewards_of(run: DistillationRun) -> list[float]:
    rewards = []
    while not run.finished:
        rewards.append(float(run.step(Temperature.shared(torch.full((run.batch_size,), 4.0))).reward))
    return rewards


def probe_figures(run: DistillationRun, size: int) -> tuple[float, float]:
    images, labels = run.splits.probe.images[:size], run.splits.probe.labels[:size]
    run.student.eval()
    with torch.no_grad():
        logits = run.student(images)
    run.student.train()
    return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


@pytest.mark.parametrize("interval", [1, 5])
@pytest.mark.parametrize("size", [40, 512])
def test_probe_rewards_add_up_to_the_gain_of_the_run(make_run: MakeRun, interval: int, size: int) -> None:
    for name, index, sign in (("probe_loss", 0, -1.0), ("probe_accuracy", 1, 1.0)):
        run = make_run(reward=name, reward_interval=interval, probe_size=size)
        run.reset(0)
        before = probe_figures(run, size)[index]
        total = sum(rewards_of(run))
        assert total == pytest.approx(sign * (probe_figures(run, size)[index] - before), abs=1e-5)


def test_a_probe_reward_credits_the_update_that_was_just_made(make_run: MakeRun) -> None:
    run = make_run(reward="probe_loss")
    run.reset(0)
    for value in (0.75, 20.0, 4.0):
        before, _ = probe_figures(run, 150)
        result = run.step(Temperature.shared(torch.full((64,), value)))
        after, _ = probe_figures(run, 150)
        assert float(result.reward) == pytest.approx(before - after, abs=1e-6)


def test_train_progress_is_the_fall_of_the_excess_loss_from_batch_to_batch(make_run: MakeRun) -> None:
    run = make_run(reward="train_progress")
    run.reset(0)

    def excess() -> float:
        student = F.cross_entropy(run.outputs.student_logits, run.outputs.labels)
        return float(student.detach() - F.cross_entropy(run.outputs.teacher_logits, run.outputs.labels))

    for _ in range(6):
        before = excess()
        result = run.step(Temperature.shared(torch.full((64,), 4.0)))
        assert float(result.reward) == pytest.approx(before - excess(), abs=1e-5)


@pytest.mark.parametrize("name", ["train_progress", "probe_loss"])
def test_delayed_rewards_are_the_sums_of_the_immediate_ones(make_run: MakeRun, name: str) -> None:
    immediate, delayed = make_run(reward=name), make_run(reward=name, reward_interval=5)
    immediate.reset(0)
    delayed.reset(0)
    each, late = rewards_of(immediate), rewards_of(delayed)
    assert [step for step, reward in enumerate(late) if reward != 0.0] == [4, 9, 11]  # 12 updates; the last is measured
    assert late[4] == pytest.approx(sum(each[:5]), abs=1e-5)
    assert late[9] == pytest.approx(sum(each[5:10]), abs=1e-5)
    assert late[11] == pytest.approx(sum(each[10:]), abs=1e-5)


def test_measuring_the_probe_leaves_a_batch_norm_students_statistics_alone(make_run: MakeRun) -> None:
    def final_mean(reward: str) -> torch.Tensor:
        run = make_run(reward=reward)
        run.create_student = lambda: torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.BatchNorm1d(12), torch.nn.Linear(12, 10)
        )
        run.reset(0)
        rewards_of(run)
        return run.student[2].running_mean

    assert torch.equal(final_mean("probe_loss"), final_mean("train_progress"))


def test_a_delayed_reward_goes_on_in_the_middle_of_its_interval(make_run: MakeRun) -> None:
    whole, first, second = (make_run(reward_interval=5) for _ in range(3))
    whole.reset(0)
    first.reset(0)
    expected = rewards_of(whole)
    for _ in range(3):
        first.step(Temperature.shared(torch.full((64,), 4.0)))
    second.load_state_dict(first.state_dict())
    assert rewards_of(second) == expected[3:]


def resumed(run: DistillationRun, make_run: MakeRun) -> DistillationRun:
    other = make_run(reward_interval=5, reward=run.reward.name)
    other.load_state_dict(run.state_dict())
    return other


@pytest.mark.parametrize("updates", [3, 5, 7])
@pytest.mark.parametrize("how", ["at once", "resumed", "forked", "after rewarded updates"])
def test_a_delayed_reward_does_not_pay_for_updates_that_a_policy_made(
    make_run: MakeRun, how: str, updates: int
) -> None:
    run = make_run(reward_interval=5, reward="probe_loss")
    run.reset(0)
    if how == "after rewarded updates":  # learning ends in the middle of an interval
        run.step(Temperature.shared(torch.full((64,), 4.0)))
    run.advance(FixedTemperature(4.0), updates - run.step_count)
    run = {"resumed": lambda: resumed(run, make_run), "forked": run.fork}.get(how, lambda: run)()
    before, _ = probe_figures(run, 150)
    rewards = []
    while not any(rewards):
        rewards.append(float(run.step(Temperature.shared(torch.full((64,), 4.0))).reward))
    after, _ = probe_figures(run, 150)
    assert rewards[-1] == pytest.approx(before - after, abs=1e-6)
    assert len(rewards) == 5  # a whole interval


def test_a_fresh_measurement_is_taken_where_rewards_begin_and_not_again(make_run: MakeRun) -> None:
    looks = []

    def counting(measurement: Measurement) -> torch.Tensor:
        looks.append(1)
        return measurement.evaluate_probe().loss

    run = make_run()
    run.reward = RewardMeter(Reward(counting, needs_probe=True), interval=4)
    run.reset(0)
    for steps in (3, 2):  # of a policy, one phase after another
        run.advance(FixedTemperature(4.0), steps)
    assert len(looks) == 2  # at the start, and after four updates
    resumed_run = run.fork()  # which takes one measurement for its state
    looks.clear()
    for _ in range(4):
        resumed_run.step(Temperature.shared(torch.full((64,), 4.0)))
    assert len(looks) == 2
