"""Calibrated rewards: conserved, and measured against updates that were really made otherwise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from watching import watch

from agents.rules.create import create_rule
from rlkd_env.credit.base import Calibrator
from rlkd_env.credit.create import CALIBRATORS
from rlkd_env.credit.first_order import LastLayer
from rlkd_env.envs.checker import check_vector_env
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.hooks import RunHook
from rlkd_env.runs.run import DistillationRun
from rlkd_env.wrappers import CalibratedReward, TemperatureAction

MakeRun = Callable[..., DistillationRun]
REFERENCE = 4.0
WATCHING = sorted(name for name, kind in CALIBRATORS.items() if issubclass(kind, Calibrator))


def random_temperatures(count: int, seed: int) -> torch.Tensor:
    return 10.0 ** torch.rand(count, generator=torch.Generator().manual_seed(seed))


def batch_norm_and_dropout_student() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 10)
    )


def probe_loss(run: DistillationRun) -> float:
    run.student.eval()
    with torch.no_grad():
        loss = F.cross_entropy(run.student(run.probe.images).double(), run.probe.labels)
    run.student.train()
    return float(loss)


@pytest.mark.parametrize("create_student", [None, batch_norm_and_dropout_student])
def test_the_counterfactual_is_what_a_fork_with_another_temperature_shows(
    make_run: MakeRun, create_student: Callable[[], nn.Module] | None
) -> None:
    run = make_run(batch_size=16, epochs=2)
    if create_student is not None:
        run.create_student = create_student
    run.reset(0)
    for step in range(9):
        run.step(Temperature.shared(random_temperatures(16, step)))
    temperature = random_temperatures(16, 99)
    as_it_was = run.fork()
    as_it_was.step(Temperature.shared(temperature))
    actual = probe_loss(as_it_was)
    expected = []
    for instance in range(16):
        other = temperature.clone()
        other[instance] = REFERENCE
        fork = run.fork()
        fork.step(Temperature.shared(other))
        for buffer, kept in zip(fork.student.buffers(), as_it_was.student.buffers(), strict=True):
            buffer.copy_(kept)  # the credit is about the weights; running statistics lag behind them
        expected.append(16 * (probe_loss(fork) - actual))
    calibrator = CALIBRATORS["counterfactual"](run, REFERENCE)
    watch(run, calibrator)
    run.step(Temperature.shared(temperature))
    np.testing.assert_allclose(
        calibrator.credit.numpy(), expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max() + 1e-5
    )


@pytest.mark.parametrize("equal_gradients", [False, True])
def test_the_reference_may_be_a_rule_with_two_temperatures_and_a_factor(
    make_run: MakeRun, equal_gradients: bool
) -> None:
    """Where all gradients have the same norm, a credit is for another direction at that norm."""
    run = make_run(batch_size=16, epochs=2, equal_gradients=equal_gradients)
    rule = create_rule("lskd", {"gradient": False})
    run.reset(0)
    for step in range(6):
        run.step(Temperature.shared(random_temperatures(16, step)))
    chosen = torch.stack([random_temperatures(16, seed) for seed in (97, 98, 99)])
    of_rule = rule(run.outputs)
    reference = torch.stack([of_rule.teacher, of_rule.student, of_rule.factor])
    as_it_was = run.fork()
    norms = [as_it_was.method.mean_gradient_norm]
    as_it_was.method.mean_gradient_norm = lambda norm: norms.append(norms[0](norm)) or norms[-1]
    as_it_was.step(Temperature(*chosen))
    expected = []
    for instance in range(16):
        other = chosen.clone()
        other[:, instance] = reference[:, instance]
        fork = run.fork()
        fork.method.mean_gradient_norm = lambda _: norms[-1]
        fork.step(Temperature(*other))
        expected.append(16 * (probe_loss(fork) - probe_loss(as_it_was)))
    calibrator = CALIBRATORS["counterfactual"](run, rule)
    watch(run, calibrator)
    run.step(Temperature(*chosen))
    np.testing.assert_allclose(
        calibrator.credit.numpy(), expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max() + 1e-5
    )


@pytest.mark.slow
def test_first_order_credits_agree_with_the_truth() -> None:
    """Pilot with 8 hidden units and random temperatures: gradient 0.95, last layer 0.78 mean Pearson correlation."""
    run = build_run(RunConfig.from_keywords(student="mlp8", device="cpu"))
    run.reset(3)
    calibrators = {name: CALIBRATORS[name](run, REFERENCE) for name in WATCHING}
    correlations: dict[str, list[float]] = {"last_layer": [], "gradient": []}
    for step in range(run.total_steps):
        measured = step % 40 == 39
        watch(run, *(calibrators.values() if measured else []))
        run.step(Temperature.shared(random_temperatures(64, step)))
        if measured:
            truth = calibrators["counterfactual"].credit.numpy()
            for name, values in correlations.items():
                values.append(np.corrcoef(calibrators[name].credit.numpy(), truth)[0, 1])
    assert np.mean(correlations["gradient"]) >= 0.9
    assert np.mean(correlations["last_layer"]) >= 0.7
    assert not calibrators["uniform"].credit.any()


@pytest.mark.slow
def test_last_layer_credit_from_a_few_probe_images_at_a_time_agrees_still() -> None:
    """Measured 0.75 against the truth, where 0.92 come from all probe images at every update."""
    run = build_run(RunConfig.from_keywords(student="mlp12", reward="train_progress", device="cpu"))
    run.reset(3)
    looked, correlations = [], []

    class Watched(LastLayer):
        def _classifier_gradient(self, run: DistillationRun, positions: torch.Tensor) -> torch.Tensor:
            looked.append(len(positions))
            return super()._classifier_gradient(run, positions)

    watched, truth = Watched(run, REFERENCE), CALIBRATORS["counterfactual"](run, REFERENCE)
    for step in range(run.total_steps):
        watch(run, watched, *([truth] if step % 40 == 39 else []))
        run.step(Temperature.shared(random_temperatures(64, step)))
        if step % 40 == 39:
            correlations.append(np.corrcoef(watched.credit.numpy(), truth.credit.numpy())[0, 1])
    assert np.mean(correlations) >= 0.6
    assert looked == [16] * math.ceil(run.total_steps / 4)


@pytest.mark.parametrize(
    ("reward", "interval", "looked_at"),
    [
        ("probe_loss", 1, [512] * 4),
        ("log_probe_loss", 1, [512] * 4),
        ("probe_accuracy", 1, [512] * 4),
        ("train_progress", 1, [4]),
        ("log_probe_loss", 2, [4]),
    ],
)
def test_last_layer_looks_at_the_whole_probe_where_the_reward_does_so_anyway(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, reward: str, interval: int, looked_at: list[int]
) -> None:
    run = make_run(batch_size=16, reward=reward, reward_interval=interval)
    run.reset(0)
    calibrator, looked = CALIBRATORS["last_layer"](run, REFERENCE), []
    gradient = LastLayer._classifier_gradient

    def noted(self: LastLayer, run: DistillationRun, positions: torch.Tensor) -> torch.Tensor:
        looked.append(len(positions))
        return gradient(self, run, positions)

    monkeypatch.setattr(LastLayer, "_classifier_gradient", noted)
    watch(run, calibrator)
    for step in range(4):
        run.step(Temperature.shared(random_temperatures(16, step)))
    assert looked == [min(count, len(run.probe)) for count in looked_at]


def test_what_a_delayed_reward_leaves_unpaid_is_a_plain_number(make_run: MakeRun) -> None:
    """Checkpoints are read without unpickling, so they hold no NumPy scalars."""
    envs = CalibratedReward(TemperatureAction(KDVectorEnv(run=make_run(batch_size=16, reward_interval=3))))
    envs.reset(seed=0)
    envs.step(np.zeros((16, 1), np.float32))
    state = envs.state_dict()
    assert type(state["unpaid"]) is float
    assert type(state["earned"]) is float


def test_last_layer_credit_goes_on_from_its_state(make_run: MakeRun) -> None:
    run = make_run(batch_size=16, reward="train_progress")
    run.reset(0)
    calibrator = CALIBRATORS["last_layer"](run, REFERENCE)
    watch(run, calibrator)
    for step in range(6):
        run.step(Temperature.shared(random_temperatures(16, step)))
    kept, run_state = copy.deepcopy(calibrator.state_dict()), run.state_dict()
    other_run = make_run(batch_size=16, reward="train_progress")
    other_run.load_state_dict(run_state)
    other = CALIBRATORS["last_layer"](other_run, REFERENCE)
    other.load_state_dict(kept)
    watch(other_run, other)
    for step in range(6, 10):
        temperature = Temperature.shared(random_temperatures(16, step))
        run.step(temperature)
        other_run.step(temperature)
        assert torch.equal(calibrator.credit, other.credit)
    fresh = CALIBRATORS["last_layer"](run, REFERENCE)
    watch(run, calibrator, fresh)
    run.step(Temperature.shared(random_temperatures(16, 10)))
    assert not torch.equal(calibrator.credit, fresh.credit)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_credits_of_a_convolutional_student_with_batch_norm_agree_too(precision: str) -> None:
    run = build_run(
        RunConfig.from_keywords(student="cnn4", batch_size=16, precision=precision, learning_rate=0.02, device="cpu")
    )
    run.reset(0)
    calibrators = {name: CALIBRATORS[name](run, REFERENCE) for name in WATCHING}
    correlations: dict[str, list[float]] = {"last_layer": [], "gradient": []}
    for step in range(40):
        measured = step % 8 == 7
        watch(run, *(calibrators.values() if measured else []))
        run.step(Temperature.shared(random_temperatures(16, step)))
        if measured:
            truth = calibrators["counterfactual"].credit.numpy()
            for name, values in correlations.items():
                values.append(np.corrcoef(calibrators[name].credit.numpy(), truth)[0, 1])
    # Medians, as single updates go further than the first order sees: measured 0.99 and 0.45 to 0.65.
    assert np.median(correlations["gradient"]) >= 0.9
    assert np.median(correlations["last_layer"]) >= 0.3


def test_the_gradient_credit_equals_the_sum_over_weights_written_out(make_run: MakeRun) -> None:
    run = make_run(batch_size=8)
    run.reset(1)
    temperature = random_temperatures(8, 0)
    calibrator = CALIBRATORS["gradient"](run, REFERENCE)
    calibrator.before_update(run, Temperature.shared(temperature))
    weights = list(run.student.parameters())
    run.student.eval()
    probe = torch.autograd.grad(F.cross_entropy(run.student(run.probe.images), run.probe.labels), weights)
    run.student.train()
    logits = run.student(run.batch.images)
    for instance in range(8):
        products = []
        for value in (temperature[instance], torch.tensor(REFERENCE)):
            outputs = run.outputs.with_student_logits(logits)
            losses = run.method(outputs, Temperature.shared(value.expand(8)))
            gradient = torch.autograd.grad(sum(losses.values())[instance], weights, retain_graph=True)
            products.append(sum((one * other).sum() for one, other in zip(probe, gradient, strict=True)))
        expected = run.learning_rate * float(products[0] - products[1])
        assert float(calibrator.credit[instance]) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", WATCHING)
def test_looking_at_an_update_does_not_change_it(make_run: MakeRun, name: str) -> None:
    def final(watched: bool) -> dict[str, torch.Tensor]:
        run = make_run(epochs=1)
        run.create_student = batch_norm_and_dropout_student
        run.reset(0)
        watch(run, *([CALIBRATORS[name](run)] if watched else []))
        for step in range(4):
            run.step(Temperature.shared(random_temperatures(64, step)))
        return run.student.state_dict()

    for one, other in zip(final(False).values(), final(True).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(CALIBRATORS)), st.integers(1, 5), st.integers(0, 10_000))
def test_calibrated_rewards_sum_to_the_batch_reward_of_every_interval(name: str, interval: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    settings = {"epochs": 3, "reward_interval": interval, "device": "cpu"}
    plain = TemperatureAction(KDVectorEnv(16, **settings))
    calibrated = CalibratedReward(TemperatureAction(KDVectorEnv(16, **settings)), name)
    plain.reset(seed=seed)
    calibrated.reset(seed=seed)
    earned = paid = 0.0
    for step in range(54):
        actions = generator.uniform(-1.0, 1.0, (16, 1)).astype(np.float32)
        expected, actual = plain.step(actions), calibrated.step(actions)
        np.testing.assert_array_equal(expected[0], actual[0])
        earned += expected[1].mean()
        paid += actual[1].mean()
        if (step + 1) % interval == 0 or expected[2].any():
            assert paid == pytest.approx(earned, abs=1e-5)
    assert expected[2].all()
    after_the_end = calibrated.step(actions)
    assert not after_the_end[1].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", WATCHING)  # what return_decomposition has learned outlives a reset
def test_the_vector_contract_holds_with_calibrated_rewards(name: str) -> None:
    envs = CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=1, device="cpu")), name)
    check_vector_env(envs)


def test_uniform_rewards_are_those_of_the_environment() -> None:
    plain, wrapped = KDVectorEnv(16, epochs=1, device="cpu"), KDVectorEnv(16, epochs=1, device="cpu")
    uniform = CalibratedReward(wrapped, "uniform")
    plain.reset(seed=0)
    uniform.reset(seed=0)
    for _ in range(5):
        action = plain.action_space.sample()
        np.testing.assert_allclose(uniform.step(action)[1], plain.step(action)[1], atol=1e-7)


@pytest.mark.parametrize("name", list(CALIBRATORS))
def test_divergence_pays_the_penalty_and_no_nan(name: str) -> None:
    slots = KDVectorEnv(64, epochs=50, learning_rate=1e6, divergence_penalty=-3.0, device="cpu")
    envs = CalibratedReward(TemperatureAction(slots), name)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    while True:
        _, rewards, terminated, _, info = envs.step(generator.uniform(-1, 1, (64, 1)).astype(np.float32))
        assert np.isfinite(rewards).all()
        if terminated.any():
            break
    assert info["diverged"].all()
    assert rewards.mean() == pytest.approx(-3.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient", "return_decomposition"])
def test_a_wrapped_run_goes_on_from_its_snapshot_in_the_middle_of_an_interval(name: str) -> None:
    def make() -> CalibratedReward:
        return CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=9, reward_interval=3, device="cpu")), name)

    generator = np.random.default_rng(0)
    actions = generator.uniform(-1.0, 1.0, (160, 16, 1)).astype(np.float32)
    one, other = make(), make()
    one.reset(seed=0)
    for action in actions[:100]:
        one.step(action)
    run_state, state = one.unwrapped.run.state_dict(), one.state_dict()
    other.unwrapped.run.load_state_dict(run_state)
    other.load_state_dict(state, other.unwrapped.observe())
    for action in actions[100:]:
        expected, actual = one.step(action), other.step(action)
        np.testing.assert_array_equal(expected[0], actual[0])
        np.testing.assert_array_equal(expected[1], actual[1])
    assert expected[1].std() > 0


def test_return_decomposition_learns_from_the_actions_that_were_made() -> None:
    def learned(low: float, high: float, refused: bool) -> dict[str, torch.Tensor]:
        envs = CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=1, device="cpu")))
        envs.reset(seed=0)
        for _ in range(3):
            if refused:
                with pytest.raises(ValueError, match="not a number"):
                    envs.step(np.full((16, 1), np.nan, np.float32))
            envs.step(np.repeat(np.array([[low], [high]], np.float32), 8, axis=0))
        return envs.state_dict()["decomposition"]["arrays"]

    expected, actual = learned(-1.0, 1.0, refused=False), learned(-np.inf, 1e4, refused=True)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_a_paused_watch_sees_nothing_and_goes_on_ahead_of_other_hooks() -> None:
    envs = CalibratedReward(KDVectorEnv(16, epochs=1, device="cpu"), "uniform")
    run, other = envs.unwrapped.run, RunHook()
    run.add_hook(other)
    envs.pause()
    envs.pause()
    assert run.hooks == (other,)
    envs.watch()
    envs.watch()
    assert run.hooks == (envs.hook, other)


def test_closing_stops_the_watch() -> None:
    base = KDVectorEnv(16, epochs=1, device="cpu")
    envs = CalibratedReward(base, "uniform")
    assert len(base.run.hooks) == 1
    envs.close()
    assert base.run.hooks == ()
    CalibratedReward(TemperatureAction(KDVectorEnv(16, epochs=1, device="cpu"))).close()


def test_what_does_not_suit_is_refused() -> None:
    base = KDVectorEnv(16, epochs=1, device="cpu")
    with pytest.raises(UsageError, match="Did you mean 'gradient'"):
        CalibratedReward(base, "gradients")
    with pytest.raises(UsageError, match="positive and finite"):
        CalibratedReward(base, "gradient", reference=0.0)
    with pytest.raises(UsageError, match="needs a KDVectorEnv"):
        CalibratedReward(gym.make_vec("CartPole-v1", num_envs=2), "uniform")
    with pytest.raises(UsageError, match="wrap the environment in TemperatureAction"):
        CalibratedReward(base)
    with pytest.raises(UsageError, match="Box states and actions"):
        CalibratedReward(gym.make_vec("CartPole-v1", num_envs=2))
    convolutional = KDVectorEnv(
        16, epochs=1, device="cpu", student=lambda: nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    )
    envs = CalibratedReward(convolutional, "last_layer")
    envs.reset(seed=0)
    with pytest.raises(UsageError, match="ends in a linear layer"):
        envs.step(np.full((16, 1), 4.0, np.float32))
