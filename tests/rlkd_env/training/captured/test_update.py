"""Captured updates: the same as plain ones. On a CPU, where nothing can be captured, a replay does the work anew."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from methods import CAPTURED
from same_weights import assert_same_weights
from small_networks import small_networks
from torch import Tensor, nn

from agents.rules.create import RuleSetting, create_rule
from agents.rules.simple import DifficultyRule, FixedTemperature
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import KD
from rlkd_env.models.graphs import Recorder
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.exploration import Explorer
from rlkd_env.sampling.settings import Exploration
from rlkd_env.training.captured.update import CapturedUpdate
from rlkd_env.training.update import Update

MakeRun = Callable[..., DistillationRun]
CUDA = pytest.param("cuda", marks=[pytest.mark.cuda])
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])


def capture(run: DistillationRun) -> DistillationRun:
    """Let a run capture its updates, on a CPU too."""
    run.task.engine = replace(run.task.engine, captured=True)
    return run


def plain_and_captured(
    make_run: MakeRun, networks: Callable[[], dict[str, Any] | None] = lambda: None, **settings: Any
) -> tuple[DistillationRun, DistillationRun]:
    """Return a run without capturing and the same with it, both started; ``networks`` makes those of each."""
    runs = make_run(networks(), capture=False, **settings), capture(make_run(networks(), **settings))
    for run in runs:
        run.reset(0)
    return runs


@DEVICES
@pytest.mark.parametrize(("method", "options"), CAPTURED)
def test_every_method_is_captured_and_trains_the_same_student(
    make_run: MakeRun, method: str, options: dict[str, Any], device: str
) -> None:
    settings = {"method": method, "method_options": options, "learning_rate": 0.01, "device": device}
    networks = partial(small_networks, method)
    plain, captured = plain_and_captured(make_run, networks, precision="float32", **settings)
    results = [run.advance(DifficultyRule(1.0, 8.0)) for run in (plain, captured)]
    assert isinstance(captured.update, CapturedUpdate)
    assert captured.update.why_plain is None
    assert type(plain.update) is Update
    assert plain.update.why_plain is not None
    assert_same_weights(plain.student, captured.student, device)
    assert_same_weights(plain.method, captured.method, device)
    assert results[0].metrics.keys() == results[1].metrics.keys()
    for name, value in results[0].metrics.items():
        torch.testing.assert_close(results[1].metrics[name], value, rtol=1e-2, atol=1e-4)
    assert float(captured.learning_rate) == float(plain.learning_rate)


@DEVICES
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_running_statistics_dropout_and_optimisers_are_the_same(make_run: MakeRun, optimizer: str, device: str) -> None:
    rate = {"sgd": 0.05, "adam": 1e-3}[optimizer]
    runs = [make_run(capture=False, device=device, optimizer=optimizer, learning_rate=rate), None]
    runs[1] = capture(make_run(device=device, optimizer=optimizer, learning_rate=rate))
    for run in runs:
        assert run is not None
        run.create_student = lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)
        )
        run.reset(0)
        run.advance(FixedTemperature(4.0))
    assert runs[0] is not None
    assert runs[1] is not None
    assert runs[1].update.why_plain is None
    assert_same_weights(runs[0].student, runs[1].student, device)
    assert int(runs[1].student[2].num_batches_tracked) == 13  # 12 updates and the batch that waits


@DEVICES
@pytest.mark.parametrize("reward", ["probe_loss", "probe_turns", "train_progress"])
def test_states_rewards_and_results_are_the_same_and_stay_as_they_are(
    make_run: MakeRun, reward: str, device: str
) -> None:
    plain, captured = plain_and_captured(make_run, reward=reward, device=device)
    kept = []
    for step in range(captured.total_steps):
        temperature = Temperature.shared(torch.linspace(1.0, 4.0 + step, 64, device=device))
        results = plain.step(temperature), captured.step(temperature)
        kept.append((results, [copies(result) for result in results]))
    for results, copied in kept:
        for result, copy in zip(results, copied, strict=True):
            for now, then in zip(copies(result), copy, strict=True):
                assert torch.equal(now, then), "a result was overwritten by a later step"
        for mine, theirs in zip(copied[0], copied[1], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@DEVICES
def test_a_captured_measurement_in_bfloat16_is_of_the_student_as_it_is_now(make_run: MakeRun, device: str) -> None:
    run = capture(make_run(student="cnn4", precision="bfloat16", reward="probe_loss", device=device))
    run.reset(0)
    for _ in range(8):
        result = run.step(Temperature.shared(torch.full((64,), 4.0, device=device)))
        now = run.task.evaluate_probe(run.student, run.probe)
        torch.testing.assert_close(result.metrics["probe_loss"], now.loss, rtol=1e-3, atol=1e-4)
        assert abs(float(result.reward)) > 1e-4
    assert run.update.why_plain is None


def copies(result: Any) -> list[Tensor]:
    """Return copies of everything that a step has handed out."""
    outputs = result.outputs
    values = [result.reward, result.state, outputs.student_logits, outputs.teacher_logits, outputs.indices.float()]
    progress = torch.tensor([float(outputs.progress), float(outputs.epoch)])
    return [value.detach().clone().cpu() for value in (*values, outputs.student_probabilities, progress)]


class Noisy(KD):
    """Draws while it computes its losses, and not in the first update."""

    draws = 0

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        parts = super().logit_losses(outputs, temperature)
        self.draws += 1
        return {"kd": parts["kd"] * (1.0 + torch.rand_like(parts["kd"]))} if self.draws > 1 else parts


@DEVICES
def test_a_method_draws_the_same_numbers_replayed(make_run: MakeRun, device: str) -> None:
    plain, captured = plain_and_captured(make_run, method=Noisy, device=device)
    for run in (plain, captured):
        run.advance(FixedTemperature(4.0))
    assert captured.update.why_plain is None
    assert_same_weights(plain.student, captured.student, device)


@DEVICES
def test_a_run_that_goes_on_in_the_middle_ends_with_the_same_student(make_run: MakeRun, device: str) -> None:
    whole, half = (capture(make_run(device=device, augmentation="none")) for _ in range(2))
    for run in (whole, half):
        run.reset(0)
    whole.advance(FixedTemperature(4.0))
    half.advance(FixedTemperature(4.0), steps=6)
    rest = capture(make_run(device=device))
    rest.load_state_dict(half.state_dict())
    rest.advance(FixedTemperature(4.0))
    assert_same_weights(whole.student, rest.student, device)


@DEVICES
@pytest.mark.parametrize("rule", ["lskd", "ctkd"])
def test_temperatures_that_carry_gradients_are_computed_plainly(make_run: MakeRun, rule: str, device: str) -> None:
    settings = RuleSetting(num_classes=10, seed=0)
    plain, captured = plain_and_captured(make_run, device=device)
    for run in (plain, captured):
        run.advance(FixedTemperature(4.0), steps=6)
    assert captured.update.why_plain is None
    temperature = create_rule(rule, {"gradient": True} if rule == "lskd" else {}, settings).to(device)
    for run in (plain, captured):
        run.advance(temperature, steps=2)
    assert captured.update.why_plain == "the temperatures carry gradients"
    assert_same_weights(plain.student, captured.student, device)


def test_gradients_given_to_a_step_are_refused(make_run: MakeRun) -> None:
    _, captured = plain_and_captured(make_run)
    captured.advance(FixedTemperature(4.0), steps=6)
    learned = torch.full((64,), 4.0, requires_grad=True)
    with pytest.raises(ValueError, match="give it to advance"):
        captured.step(Temperature.shared(learned))


@DEVICES
def test_temperatures_of_both_networks_and_a_factor_are_taken(make_run: MakeRun, device: str) -> None:
    plain, captured = plain_and_captured(make_run, device=device)
    for step in range(10):
        teacher, student, factor = torch.linspace(1.0, 5.0 + step, 192, device=device).reshape(3, 64)
        for run in (plain, captured):
            run.step(Temperature(teacher, student, factor if step % 2 else None))
    assert_same_weights(plain.student, captured.student, device)


@DEVICES
def test_mixed_batches_are_another_kind(make_run: MakeRun, device: str) -> None:
    plain, captured = plain_and_captured(make_run, device=device)
    for run in (plain, captured):
        exploration = Exploration(first_epoch=2, last_epoch=2, batches="all")
        run.use_sampler(Explorer(exploration, len(run.splits.train), run.device))
        run.reset(0)
        run.advance(FixedTemperature(4.0))
    assert captured.update.why_plain is None
    assert_same_weights(plain.student, captured.student, device)


@DEVICES
def test_mixes_and_an_average_of_the_weights_need_no_plain_updates(make_run: MakeRun, device: str) -> None:
    options = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "ema_decay": 0.7, "class_balanced": True}
    plain, captured = plain_and_captured(make_run, student="digits_cnn", device=device, **options)
    for run in (plain, captured):
        run.advance(FixedTemperature(4.0))
    assert captured.update.why_plain is None
    assert_same_weights(plain.student, captured.student, device)
    for name, value in plain.weights().items():
        torch.testing.assert_close(captured.weights()[name], value, rtol=1e-3, atol=1e-4)


def test_a_hook_that_a_replay_would_leave_out_is_called_in_every_update(make_run: MakeRun) -> None:
    _, captured = plain_and_captured(make_run)
    captured.advance(FixedTemperature(4.0), steps=5)
    seen = []
    handle = captured.student.register_forward_hook(lambda module, *_: seen.append(module.training))
    captured.advance(FixedTemperature(4.0), steps=3)
    handle.remove()
    captured.advance(FixedTemperature(4.0), steps=1)
    assert sum(seen) == 3


class Wilful(nn.Module):
    """Computes something else at every call, which no recording can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(images) * (1.0 + self.calls % 2)


@DEVICES
def test_a_student_whose_replay_is_wrong_is_noticed(make_run: MakeRun, device: str) -> None:
    run = capture(make_run(device=device))
    run.create_student = Wilful
    run.reset(0)
    with pytest.warns(UserWarning, match="something else"):
        run.advance(FixedTemperature(4.0))
    assert "something else" in str(run.update.why_plain)
    assert run.finished


@pytest.mark.cuda
def test_a_student_that_waits_for_the_device_is_computed_plainly(make_run: MakeRun) -> None:
    class Waiting(Wilful):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.layers(images)
            return logits if float(logits.abs().max()) > 0 else logits + 1

    runs = [make_run(device="cuda"), make_run(device="cuda", capture=False)]
    for run in runs:
        run.create_student = Waiting
        run.reset(0)
    with pytest.warns(UserWarning, match="not captured"):
        runs[0].advance(FixedTemperature(4.0))
    runs[1].advance(FixedTemperature(4.0))
    assert "capturing failed" in str(runs[0].update.why_plain)
    assert_same_weights(runs[0].student, runs[1].student, "cuda")


def test_where_recording_fails_the_run_goes_on(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, captured = plain_and_captured(make_run)

    def refuse(self: Recorder, work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorder, "record", refuse)
    with pytest.warns(UserWarning, match="not captured as CUDA graphs, and so slower: capturing failed: operation"):
        captured.advance(FixedTemperature(4.0))
    plain.advance(FixedTemperature(4.0))
    assert_same_weights(plain.student, captured.student, "cpu")


@DEVICES
@pytest.mark.parametrize("seeds", [(0, 1, 2), (0, 0, 0)])
@pytest.mark.parametrize("student", ["mlp12", "cnn4"])
def test_stacked_students_are_captured(make_run: MakeRun, device: str, seeds: tuple[int, ...], student: str) -> None:
    finished = []
    settings = {"device": device, "student": student, "precision": "float32", "learning_rate": 0.01}
    for run in (make_run(capture=False, **settings), capture(make_run(**settings))):
        runs = create_parallel_runs(run, 3, "stacked")
        runs.reset(seeds)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that it is not captured
            runs.advance(DifficultyRule(1.0, 8.0))
        finished.append(runs.students())
    for first, second in zip(*finished, strict=True):
        assert_same_weights(first, second, device)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "crd", "method_options": {"negatives": 8}, "student": "digits_cnn"}, "CRD draws random numbers"),
        ({}, "a policy is trained along"),
    ],
)
def test_what_is_never_captured_says_why(make_run: MakeRun, settings: dict[str, Any], reason: str) -> None:
    run = capture(make_run(**settings))
    if not settings:
        run.create_policy = lambda seed: create_rule("ctkd", {}, RuleSetting(num_classes=10, seed=seed))
    run.reset(0)
    assert reason in str(run.update.why_plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.advance(None if not settings else FixedTemperature(4.0))
