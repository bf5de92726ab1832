"""Batch rewards: measured after the update, paired, and telescoping over a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from agents.rules.simple import FixedTemperature
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.reward import TURN, Measurement, Reward, RewardMeter
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Classification

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


def test_rewards_in_bfloat16_say_what_those_in_float32_do(make_run: MakeRun) -> None:
    run = make_run(student="cnn8", precision="bfloat16", reward="probe_loss", epochs=10)
    run.reset(0)
    losses, rewards = [probe_figures(run, 150)[0]], []
    while not run.finished:
        rewards.append(float(run.step(Temperature.shared(torch.full((64,), 4.0))).reward))
        losses.append(probe_figures(run, 150)[0])
    gained = -torch.tensor(losses).diff()
    errors = torch.tensor(rewards) - gained
    assert 0.0 < errors.std() < 0.1 * gained.std()
    assert abs(errors.mean()) < 0.01 * gained.mean()
    assert float(run.evaluate_student(run.probe).loss) == pytest.approx(losses[-1], abs=1e-6)


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
    assert len(looks) == 1  # at the start: nobody is paid for these updates
    resumed_run = run.fork()  # which takes one measurement for its state
    looks.clear()
    for _ in range(4):
        resumed_run.step(Temperature.shared(torch.full((64,), 4.0)))
    assert len(looks) == 2


@pytest.mark.parametrize("reward", ["probe_loss", "probe_accuracy", "probe_turns"])
def test_the_probe_is_hardly_looked_at_where_nobody_reads_the_reward(
    make_run: MakeRun, reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    plain = Classification.evaluate_probe
    monkeypatch.setattr(Classification, "evaluate_probe", lambda *given: looks.append(len(given[2])) or plain(*given))
    run = make_run(reward=reward, epochs=10)
    run.reset(0)
    run.advance(FixedTemperature(4.0), 40)
    assert len(looks) <= 4  # at the start, after 16 and 32 updates, and after the last
    run.reset(0)
    looks.clear()
    for _ in range(10):
        run.step(Temperature.shared(torch.full((64,), 4.0)))
    assert len(looks) >= 10


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
    assert turns.measures_probe
    for _ in range(20):
        assert torch.equal(turns.step(four(turns)).reward, whole.step(four(whole)).reward)
    assert not make_run(**FOUR_PARTS, reward_interval=2).measures_probe


def test_a_part_of_the_probe_is_not_the_whole_probe_for_credit(make_run: MakeRun) -> None:
    run = make_run(**FOUR_PARTS)
    run.reset(0)
    assert not run.measures_probe


@pytest.mark.parametrize(("train_images", "interval"), [(300, 18), (100, TURN)])
def test_updates_of_a_policy_are_measured_once_in_an_epoch_or_a_turn(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, train_images: int, interval: int
) -> None:
    run, sizes = make_run(**{**FOUR_PARTS, "epochs": 8}, train_images=train_images), []
    evaluate = run.task.evaluate_probe
    monkeypatch.setattr(
        run.task, "evaluate_probe", lambda student, images: sizes.append(len(images)) or evaluate(student, images)
    )
    run.reset(0)
    sizes.clear()
    assert run.steps_per_epoch == (18 if train_images == 300 else 6)
    for _ in range(2):
        before = part_loss(run, 0)
        result = run.advance(FixedTemperature(4.0), interval)
        assert float(result.reward) == pytest.approx(before - part_loss(run, 0), abs=1e-6)
    assert sizes == [38, 38]  # of the first part, whose turn is not over before anybody is paid
    run.advance(FixedTemperature(4.0), 1)
    assert len(sizes) == 2
    before = part_loss(run, 0)
    assert float(run.step(four(run)).reward) == pytest.approx(before - part_loss(run, 0), abs=1e-6)
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
