"""The KD run: one forward a step, exact snapshots, and what a step reports."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from watching import watch

from agents.recording.selection import StudentSelection
from agents.recording.timing import PartTimer
from agents.rules import create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import RunMode

MakeRun = Callable[..., DistillationRun]


def fixed(run: DistillationRun, value: float = 4.0) -> Temperature:
    return Temperature.shared(torch.full((run.batch_size,), value))


def random_temperatures(run: DistillationRun, seed: int) -> Temperature:
    generator = torch.Generator().manual_seed(seed)
    return Temperature.shared(1.0 + 9.0 * torch.rand(run.batch_size, generator=generator))


def batch_norm_and_dropout_student() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 10)
    )


def weights(run: DistillationRun) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.student.state_dict().items()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_a_run_equals_a_training_loop_written_out_by_hand(make_run: MakeRun) -> None:
    run = make_run(epochs=2)
    run.reset(7)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    student.load_state_dict(run.student.state_dict())
    optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    for step in range(8):
        images, labels = run.splits.train.images[run.outputs.indices], run.outputs.labels
        temperature = random_temperatures(run, step).student
        student_logits, teacher_logits = student(images), run.teacher(images)
        kl = F.kl_div(
            (student_logits / temperature[:, None]).log_softmax(1),
            (teacher_logits / temperature[:, None]).softmax(1),
            reduction="none",
        ).sum(1)
        loss = (0.1 * F.cross_entropy(student_logits, labels, reduction="none") + 0.9 * temperature**2 * kl).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        result = run.step(Temperature.shared(temperature))
        torch.testing.assert_close(result.metrics["loss"], loss.detach(), rtol=1e-5, atol=1e-6)
    for name, value in run.student.state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cache", "teacher_forwards"), [(0, 5), (64, 0)])
def test_a_step_forwards_each_network_once_and_no_teacher_that_is_remembered(
    make_run: MakeRun, cache: int, teacher_forwards: int
) -> None:
    run = make_run(reward="train_progress", teacher_cache_mib=cache)
    run.reset(0)
    calls = {"student": 0, "teacher": 0}
    run.student.register_forward_hook(lambda *_: calls.__setitem__("student", calls["student"] + 1))
    run.teacher.register_forward_hook(lambda *_: calls.__setitem__("teacher", calls["teacher"] + 1))
    for _ in range(5):
        run.step(fixed(run))
    assert calls == {"student": 5, "teacher": teacher_forwards}


@pytest.mark.slow
@pytest.mark.parametrize("create_student", [None, batch_norm_and_dropout_student])
@pytest.mark.parametrize("reward_interval", [1, 3])
@pytest.mark.parametrize("steps_before", [0, 1, 5])
def test_a_fork_goes_on_bit_for_bit_and_leaves_its_parent_untouched(
    make_run: MakeRun, create_student: Callable[[], nn.Module] | None, reward_interval: int, steps_before: int
) -> None:
    run = make_run(reward_interval=reward_interval)
    if create_student is not None:
        run.create_student = create_student
    run.reset(3)
    for step in range(steps_before):
        run.step(random_temperatures(run, step))
    parent_before = weights(run)
    fork = run.fork()
    assert torch.equal(fork.state(fork.outputs), run.state(run.outputs))
    branch = [fork.step(random_temperatures(run, 100 + step)) for step in range(6)]
    assert_equal(weights(run), parent_before)
    for step in range(6):
        result = run.step(random_temperatures(run, 100 + step))
        assert torch.equal(result.state, branch[step].state)
        assert torch.equal(result.reward, branch[step].reward)
    assert_equal(weights(run), weights(fork))


def test_a_restored_run_equals_the_uninterrupted_one(make_run: MakeRun) -> None:
    run = make_run(reward_interval=2)
    run.create_student = batch_norm_and_dropout_student
    run.reset(1)
    for step in range(5):
        run.step(random_temperatures(run, step))
    snapshot = run.state_dict()
    for step in range(5, 12):
        run.step(random_temperatures(run, step))
    other = make_run(reward_interval=2)
    other.create_student = batch_norm_and_dropout_student
    state = other.load_state_dict(snapshot)
    assert torch.equal(state, other.state(other.outputs))
    for step in range(5, 12):
        other.step(random_temperatures(run, step))
    assert_equal(weights(run), weights(other))


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_snapshot_survives_a_file_without_pickled_objects(make_run: MakeRun, schedule: str, tmp_path) -> None:
    run = make_run(schedule=schedule)
    run.reset(0)
    run.step(fixed(run))
    torch.save(run.state_dict(), tmp_path / "run.pt")
    restored = make_run(schedule=schedule)
    restored.load_state_dict(torch.load(tmp_path / "run.pt", weights_only=True))
    run.step(fixed(run))
    restored.step(fixed(run))
    assert_equal(weights(run), weights(restored))


def test_a_snapshot_of_another_version_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    with pytest.raises(UsageError, match="version 99"):
        run.load_state_dict({**run.state_dict(), "version": 99})


def test_the_same_seed_gives_the_same_run_and_another_seed_another(make_run: MakeRun) -> None:
    def final(seed: int) -> dict[str, Tensor]:
        run = make_run()
        run.reset(seed)
        torch.rand(seed + 1)  # draws of others from the global generator must not matter
        run.advance(lambda outputs: Temperature.shared(torch.full_like(outputs.labels, 4.0, dtype=torch.float32)))
        return weights(run)

    assert_equal(final(5), final(5))
    assert not torch.equal(final(5)["1.weight"], final(6)["1.weight"])


def test_a_run_leaves_the_global_generator_alone(make_run: MakeRun) -> None:
    run = make_run()
    run.create_student = batch_norm_and_dropout_student
    before = torch.get_rng_state()
    run.reset(0)
    run.step(fixed(run))
    assert torch.equal(torch.get_rng_state(), before)


def test_advance_equals_steps_with_the_same_policy(make_run: MakeRun) -> None:
    def policy(outputs: InstanceOutputs) -> Temperature:
        return Temperature.shared(1.0 + 5.0 * outputs.true_class(outputs.teacher_probabilities))

    one, other = make_run(), make_run()
    one.reset(2)
    other.reset(2)
    last = one.advance(policy)
    while not other.finished:
        result = other.step(policy(other.outputs))
    assert_equal(weights(one), weights(other))
    assert last.finished
    assert torch.equal(last.state, result.state)


def test_a_policy_that_asks_for_the_students_probabilities_leaves_the_loss_its_gradient(
    make_run: MakeRun,
) -> None:
    """The state of a run without features of the student has not computed them before."""

    def policy(outputs: InstanceOutputs) -> Temperature:
        return Temperature.shared(1.0 + 5.0 * outputs.true_class(outputs.student_probabilities))

    students = []
    for features in (("teacher_performance",), ("teacher_performance", "student_performance")):
        run = make_run(features=features)
        run.reset(2)
        run.advance(policy)
        students.append(weights(run))
    assert_equal(*students)


def test_advance_stops_after_the_steps_it_was_given_or_at_the_end(make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    policy = lambda outputs: fixed(run)  # noqa: E731
    run.advance(policy, 5)
    assert (run.step_count, run.epoch, run.finished) == (5, 1, False)
    run.advance(policy, 1000)
    assert (run.step_count, run.epoch, run.progress, run.finished) == (12, 3, 1.0, True)
    with pytest.raises(ValueError, match="at least 1"):
        run.advance(policy, 0)


def test_teacher_and_student_temperatures_may_differ(make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    outputs = run.outputs
    temperature = Temperature(teacher=torch.full((64,), 2.0), student=torch.full((64,), 5.0))
    expected = sum(create_method("kd")(outputs, temperature).values()).mean()
    torch.testing.assert_close(run.step(temperature).metrics["loss"], expected.detach())


def test_the_teacher_stays_frozen_and_in_evaluation_mode(digits_teacher: nn.Module, make_run: MakeRun) -> None:
    run = make_run()
    run.reset(0)
    before = {name: value.clone() for name, value in digits_teacher.state_dict().items()}
    run.step(fixed(run))
    assert not run.teacher.training
    assert not any(parameter.requires_grad for parameter in run.teacher.parameters())
    assert_equal(before, dict(digits_teacher.state_dict()))


def test_hooks_follow_every_update_and_epoch(make_run: MakeRun) -> None:
    seen: list[object] = []

    class Recorder(RunHook):
        def on_step(self, run: DistillationRun, result: StepResult) -> None:
            seen.append(run.step_count)

        def on_epoch_end(self, run: DistillationRun) -> None:
            seen.append(f"epoch {run.epoch}")

    run = make_run(epochs=2)
    run.reset(0)
    watch(run, Recorder(), RunHook())
    run.advance(lambda outputs: fixed(run))
    assert seen == [1, 2, 3, 4, "epoch 1", 5, 6, 7, 8, "epoch 2"]


def test_hooks_are_called_in_their_order_until_they_are_removed(make_run: MakeRun) -> None:
    seen: list[str] = []

    class Named(RunHook):
        def __init__(self, name: str) -> None:
            self.name = name

        def before_update(self, run: DistillationRun, temperature: Temperature) -> None:
            seen.append(self.name)

    run, hooks = make_run(), {name: Named(name) for name in ("second", "third", "first")}
    run.reset(0)
    run.add_hook(hooks["second"])
    run.add_hook(hooks["third"])
    run.add_hook(hooks["first"], first=True)
    assert [hook.name for hook in run.hooks] == ["first", "second", "third"]
    run.step(fixed(run))
    run.remove_hook(hooks["second"])
    run.step(fixed(run))
    assert seen == ["first", "second", "third", "first", "third"]
    assert run.fork().hooks == run.sibling().hooks == ()
    with pytest.raises(ValueError, match="not in list"):
        run.remove_hook(hooks["second"])


@pytest.mark.parametrize("stop_at_epoch", [True, False])
def test_divergence_is_reported_with_the_penalty_and_a_finite_state(make_run: MakeRun, stop_at_epoch: bool) -> None:
    run = make_run(learning_rate=1e6, divergence_penalty=-3.0, epochs=50)
    run.reset(0)
    if stop_at_epoch:
        result = run.advance(lambda outputs: fixed(run))
        assert run.step_count % run.steps_per_epoch == 0
    else:
        result = run.step(fixed(run))
        while not result.done:
            result = run.step(fixed(run))
    assert bool(result.diverged)
    assert result.done
    assert not run.finished
    assert float(result.reward) == -3.0
    assert result.state.isfinite().all()


def test_misuse_is_refused(make_run: MakeRun) -> None:
    run = make_run(epochs=1)
    for not_started in (lambda: run.step(fixed(run)), run.state_dict):
        with pytest.raises(RuntimeError, match="reset"):
            not_started()
    run.reset(0)
    with pytest.raises(ValueError, match=r"expected 64 temperatures .* got \(3,\)"):
        run.step(Temperature.shared(torch.ones(3)))
    run.advance(lambda outputs: fixed(run))
    with pytest.raises(RuntimeError, match="over"):
        run.step(fixed(run))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": 0.0}, "learning rate must be positive"),
        ({"learning_rate": float("nan")}, "learning rate must be finite"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 301}, "larger than the training set of 300"),
        ({"probe_size": 0}, "at least 1 image"),
        ({"reward_interval": 0}, "at least 1 update"),
        ({"reward": "probe"}, "Valid: log_probe_loss, probe_accuracy, probe_loss, probe_turns, train_progress"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"student": "mlp13"}, "unknown network 'mlp13'"),
        ({"device": "gpu"}, "not available"),
        ({"device": "cuda:99"}, "not available"),
        ({"temperature_min": 9, "temperature_max": 3}, "empty"),
    ],
)
def test_invalid_settings_are_refused(make_run: MakeRun, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_run(**settings)


def test_a_teacher_of_other_classes_is_refused() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(UsageError, match="knows 7 classes, but the data has 10"):
        build_run(RunConfig.from_keywords(device="cpu"), teacher=teacher)


class UnusedWeight(nn.Module):
    """A weight that has no part in what a network gives."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, values: Tensor) -> Tensor:
        return values


@pytest.mark.parametrize("weight", [1e18, float("inf"), float("nan"), -1e18])
@pytest.mark.parametrize("mode", [None, "stacked", "serial"])
def test_weights_that_are_not_sound_are_a_divergence_whatever_the_losses(
    weight: float, mode: RunMode | None, digits_teacher: nn.Module
) -> None:
    def student() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), UnusedWeight(), nn.ReLU(), nn.Linear(8, 10))

    config = RunConfig.from_keywords(epochs=2, device="cpu", optimizer="sgd", learning_rate=1e-3)
    run = build_run(config, teacher=digits_teacher, student=student)
    runs = run if mode is None else create_parallel_runs(run, 2, mode)
    selection = StudentSelection(PartTimer())
    if mode is None:
        run.add_hook(selection)
        run.reset(0)
    else:
        runs.reset([0, 0])
    policy = create_rule("fixed", {"temperature": 4})
    assert not runs.advance(policy, run.steps_per_epoch).diverged.any()
    state = runs.state_dict()
    spoilt = state["student"] if mode is None else state["runs"][1]["student"]
    spoilt["2.weight"].fill_(weight)
    runs.load_state_dict(state)
    result = runs.advance(policy)
    assert result.metrics["loss"].isfinite().all()
    assert result.diverged.flatten().tolist() == ([True] if mode is None else [False, True])
    if mode is None:
        assert selection.last_epoch == 1
