"""The reward that parts of the probe images take turns in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from agents.rules.simple import FixedTemperature
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.reward import TURN
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]
FOUR_PARTS = {"reward": "probe_turns", "batch_size": 16, "epochs": 5}  # 150 probe images: 4 parts of 37 or 38
PARTS = 4


def part_loss(run: DistillationRun, part: int) -> float:
    """Loss on every fourth probe image, from one on, by an independent formula."""
    images, labels = run.splits.probe.images[part:150:PARTS], run.splits.probe.labels[part:150:PARTS]
    run.student.eval()
    with torch.no_grad():
        loss = F.cross_entropy(run.student(images), labels)
    run.student.train()
    return float(loss)


def four(run: DistillationRun) -> Temperature:
    return Temperature.shared(torch.full((run.batch_size,), 4.0))


@pytest.mark.parametrize("interval", [1, 2])
def test_each_part_is_measured_before_and_after_the_updates_of_its_turn(make_run: MakeRun, interval: int) -> None:
    run = make_run(**FOUR_PARTS, reward_interval=interval)
    run.reset(0)
    assert len(run.probe_parts) == PARTS
    assert sum(len(part) for part in run.probe_parts) == 150
    before, turns = None, set()
    for update in range(run.total_steps - 1):
        part = update // (TURN * interval) % PARTS
        turns.add(part)
        if update % interval == 0:
            before = part_loss(run, part)
        reward = float(run.step(four(run)).reward)
        measured = (update + 1) % interval == 0
        assert reward == pytest.approx(before - part_loss(run, part) if measured else 0.0, abs=1e-6)
        assert run.reward.is_measured == measured
    assert len(turns) == (PARTS if interval == 1 else 3)


def test_the_rewards_of_a_turn_add_up_to_its_parts_gain(make_run: MakeRun) -> None:
    run = make_run(**FOUR_PARTS)
    run.reset(0)
    for part in range(PARTS):
        before = part_loss(run, part)
        total = sum(float(run.step(four(run)).reward) for _ in range(TURN))
        assert total == pytest.approx(before - part_loss(run, part), abs=1e-5)


def test_a_probe_of_less_than_four_batches_is_one_part_and_the_reward_is_the_probe_loss(make_run: MakeRun) -> None:
    turns, whole = make_run(epochs=6, reward="probe_turns"), make_run(epochs=6, reward="probe_loss")
    for run in (turns, whole):
        run.reset(0)
    assert turns.reward.measures_probe
    for _ in range(20):
        assert torch.equal(turns.step(four(turns)).reward, whole.step(four(whole)).reward)
    assert not make_run(**FOUR_PARTS, reward_interval=2).reward.measures_probe


def test_a_part_of_the_probe_is_not_the_whole_probe_for_credit(make_run: MakeRun) -> None:
    run = make_run(**FOUR_PARTS)
    run.reset(0)
    assert not run.reward.measures_probe


def test_updates_of_a_policy_are_measured_at_the_ends_of_turns_alone(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sizes = make_run(**FOUR_PARTS), []
    evaluate = run.task.evaluate_probe
    monkeypatch.setattr(
        run.task, "evaluate_probe", lambda student, images: sizes.append(len(images)) or evaluate(student, images)
    )
    run.reset(0)
    sizes.clear()
    before = part_loss(run, 0)
    result = run.advance(FixedTemperature(4.0), TURN)
    assert float(result.reward) == pytest.approx(before - part_loss(run, 0), abs=1e-6)
    assert sizes == [38, 38]  # the end of the first part's turn and the beginning of the second's
    run.advance(FixedTemperature(4.0), 5)
    assert len(sizes) == 2
    before = part_loss(run, 1)
    assert float(run.step(four(run)).reward) == pytest.approx(before - part_loss(run, 1), abs=1e-6)
    assert len(sizes) == 4  # a fresh measurement, and the update's


@pytest.mark.parametrize("rewarded", [True, False])
@pytest.mark.parametrize("updates", [TURN - 1, TURN, TURN + 3])
def test_restored_and_forked_runs_go_on_in_the_middle_of_a_turn(
    make_run: MakeRun, updates: int, rewarded: bool
) -> None:
    run = make_run(**FOUR_PARTS)
    run.reset(0)
    for _ in range(updates):
        run.step(four(run), is_rewarded=rewarded)
    other = make_run(**FOUR_PARTS)
    other.load_state_dict(run.state_dict())
    runs = (run, other, run.fork())
    for _ in range(2 * TURN):
        rewards = [one.step(four(one)).reward for one in runs]
        assert torch.equal(rewards[0], rewards[1])
        assert torch.equal(rewards[0], rewards[2])


def test_the_first_part_is_measured_first_in_every_run(make_run: MakeRun) -> None:
    run = make_run(**FOUR_PARTS)
    rewards = []
    for _ in range(2):
        run.reset(3)
        rewards.append([float(run.step(four(run)).reward) for _ in range(TURN + 2)])
    assert rewards[0] == rewards[1]
