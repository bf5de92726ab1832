"""Rules against their formulas in float64, and as the run's own policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from losses import dkd_loss
from torch import Tensor

from agents.rules.create import RULES, Rule, RuleSetting, create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature, TemperatureRange
from rlkd_env.methods import create_method, kd_loss
from rlkd_env.runs.run import DistillationRun

SETTING = RuleSetting(TemperatureRange(0.5, 8.0), 3.0, teacher_deviation=2.0, num_classes=10, seed=7)
MakeRun = Callable[..., DistillationRun]


def outputs(count: int = 50, seed: int = 0, dtype: torch.dtype = torch.float64, **fields: Any) -> InstanceOutputs:
    random = np.random.default_rng(seed)
    student, teacher = random.normal(1.0, 2.0, (count, 10)), random.normal(2.0, 5.0, (count, 10))
    labels = torch.from_numpy(random.integers(0, 10, count))
    given = {"progress": 0.3, "epoch": 4.25, "step": 17, **fields}
    return InstanceOutputs(torch.tensor(student, dtype=dtype), torch.tensor(teacher, dtype=dtype), labels, **given)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of one instance."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def entropy(logits: np.ndarray) -> float:
    p = softmax(logits)
    return float(-(p * np.log(p)).sum() / math.log(len(p)))


Formula = Callable[[np.ndarray, np.ndarray, int], tuple[float, float, float | None]]
"""Student's and teacher's logits and the class; student's and teacher's temperature and the factor."""


def shared(temperature: Callable[[np.ndarray, np.ndarray, int], float]) -> Formula:
    def formula(student: np.ndarray, teacher: np.ndarray, label: int) -> tuple[float, float, None]:
        value = temperature(student, teacher, label)
        return value, value, None

    return formula


def dtkd(tau: float) -> Formula:
    def formula(student: np.ndarray, teacher: np.ndarray, _: int) -> tuple[float, float, None]:
        m_s, m_t = student.max(), teacher.max()
        if m_s <= 0 or m_t <= 0:
            return tau, tau, None
        return 2 * m_s / (m_s + m_t) * tau, 2 * m_t / (m_s + m_t) * tau, None

    return formula


FORMULAS: list[tuple[str, dict[str, Any], Formula]] = [
    ("fixed", {}, shared(lambda s, t, y: 3.0)),
    ("fixed", {"temperature": "0.5s"}, shared(lambda s, t, y: 1.0)),
    ("linear", {"first": 2, "last": 6}, shared(lambda s, t, y: 2 + 0.3 * 4)),
    ("linear", {}, shared(lambda s, t, y: 8 + 0.3 * (0.5 - 8))),
    ("cosine", {"first": 2, "last": 6}, shared(lambda s, t, y: 6 + (2 - 6) * (1 + math.cos(0.3 * math.pi)) / 2)),
    ("entropy", {}, shared(lambda s, t, y: 0.5 + 7.5 * entropy(t))),
    ("entropy", {"of": "student", "direction": "falling"}, shared(lambda s, t, y: 8 - 7.5 * entropy(s))),
    ("entropy", {"scale": "log", "low": 1, "high": "2s"}, shared(lambda s, t, y: 4 ** entropy(t))),
    ("difficulty", {}, shared(lambda s, t, y: 0.5 + 7.5 * (1 - softmax(s)[y]))),
    ("difficulty", {"of": "teacher", "direction": "falling"}, shared(lambda s, t, y: 8 - 7.5 * (1 - softmax(t)[y]))),
    ("lskd", {}, lambda s, t, y: (2 * s.std(), 2 * t.std(), 4.0)),
    ("lskd", {"tau": 3, "correction": 1}, lambda s, t, y: (3 * s.std(ddof=1), 3 * t.std(ddof=1), 9.0)),
    ("normkd", {}, lambda s, t, y: (2 * s.std(), 2 * t.std(), (2 * t.std()) ** 2)),
    ("ttm", {}, lambda s, t, y: (1.0, 4.0, 1.0)),
    ("ttm", {"gamma": 0.1}, lambda s, t, y: (1.0, 10.0, 1.0)),
    ("wttm", {"temperature": 2}, lambda s, t, y: (1.0, 2.0, (softmax(t) ** 0.5).sum())),
    ("dtkd", {}, dtkd(4.0)),
    ("dtkd", {"tau": 2.5, "gradient": False}, dtkd(2.5)),
    ("ctkd", {}, shared(lambda s, t, y: 1 + 20 / (1 + math.exp(-1)))),
    ("ctkd", {"scope": "instance"}, shared(lambda s, t, y: 1 + 20 / (1 + math.exp(-1)))),
]


@pytest.mark.parametrize(("name", "options", "formula"), FORMULAS)
def test_rules_equal_their_definition_instance_by_instance(
    name: str, options: dict[str, Any], formula: Formula
) -> None:
    batch = outputs()
    batch.student_logits[0] -= 100.0  # no logit is positive
    chosen = create_rule(name, options, SETTING)(batch).detach()
    rows = zip(batch.student_logits.numpy(), batch.teacher_logits.numpy(), batch.labels.tolist(), strict=True)
    expected = [formula(*row) for row in rows]
    np.testing.assert_allclose(chosen.student.numpy(), [row[0] for row in expected], rtol=1e-12)
    np.testing.assert_allclose(chosen.teacher.numpy(), [row[1] for row in expected], rtol=1e-12)
    if expected[0][2] is None:
        assert chosen.factor is None
    else:
        assert chosen.factor is not None
        np.testing.assert_allclose(chosen.factor.numpy(), [row[2] for row in expected], rtol=1e-12)


def test_every_rule_is_checked_and_gives_one_temperature_an_instance() -> None:
    assert {name for name, _, _ in FORMULAS} | {"random", "public_agent"} == set(RULES)
    for name in RULES:
        for dtype, expected in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32)):
            chosen = create_rule(name, setting=SETTING)(outputs(9, dtype=dtype))
            assert chosen.student.shape == chosen.teacher.shape == (9,)
            assert chosen.student.dtype == chosen.teacher.dtype == expected
            assert (chosen.student > 0).all()


def standardised(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=-1, keepdim=True)) / logits.std(dim=-1, correction=0, keepdim=True)


def test_lskd_is_standardisation_in_loss_and_gradient() -> None:
    batch = outputs()
    batch.student_logits.requires_grad_(True)
    rule = create_rule("lskd")
    loss = kd_loss(batch.student_logits, batch.teacher_logits, rule(batch))
    fixed = Temperature.shared(torch.full((50,), 2.0, dtype=torch.float64))
    expected = kd_loss(standardised(batch.student_logits), standardised(batch.teacher_logits), fixed)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss.sum(), batch.student_logits)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), batch.student_logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
    # Of standardised logits the loss sees no scale, so the gradient has no part along them.
    centred = batch.student_logits.detach() - batch.student_logits.detach().mean(dim=-1, keepdim=True)
    assert (gradient * centred).sum(dim=-1).abs().max() < 1e-9


@pytest.mark.parametrize("gamma", [0.25, 0.8])
def test_ttm_compares_the_students_own_distribution_with_a_power_of_the_teachers(gamma: float) -> None:
    batch = outputs()
    for name in ("ttm", "wttm"):
        losses = kd_loss(batch.student_logits, batch.teacher_logits, create_rule(name, {"gamma": gamma})(batch))
        for loss, student, teacher in zip(
            losses, batch.student_logits.numpy(), batch.teacher_logits.numpy(), strict=True
        ):
            power = softmax(teacher) ** gamma
            weight = power.sum() if name == "wttm" else 1.0
            power = power / power.sum()
            expected = weight * (power * np.log(power / softmax(student))).sum()
            assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_a_factor_stands_in_for_the_product_of_the_temperatures() -> None:
    batch = outputs(6)
    student, teacher = torch.linspace(1, 3, 6).double(), torch.linspace(4, 2, 6).double()
    factor = torch.arange(6).double()
    plain, own = Temperature(teacher, student), Temperature(teacher, student, factor)
    logits = batch.student_logits, batch.teacher_logits
    torch.testing.assert_close(kd_loss(*logits, own), factor * kd_loss(*logits, plain, temperature_squared=False))
    torch.testing.assert_close(kd_loss(*logits, own, False), kd_loss(*logits, plain, False), rtol=0, atol=0)
    torch.testing.assert_close(
        dkd_loss(*logits, batch.labels, own), factor * dkd_loss(*logits, batch.labels, plain, temperature_squared=False)
    )
    for name in ("kd", "dkd"):
        with_own = create_method(name).logit_losses(batch, own)
        with_product = create_method(name).logit_losses(batch, Temperature(teacher, student, student * teacher))
        for part, loss in create_method(name).logit_losses(batch, plain).items():
            torch.testing.assert_close(with_product[part], loss)
            torch.testing.assert_close(with_own[part] * student * teacher, loss * factor)


def test_equal_or_enormous_logits_break_nothing() -> None:
    for name in RULES:
        batch = outputs(4, dtype=torch.float32)
        batch.student_logits[0], batch.teacher_logits[1] = 0.0, 3.0
        batch.student_logits[2], batch.teacher_logits[3] = -5.0, 1e-30
        batch.student_logits[3, 1] = 1e4
        batch.student_logits.requires_grad_(True)
        loss = kd_loss(batch.student_logits, batch.teacher_logits, create_rule(name, setting=SETTING)(batch))
        loss.sum().backward()
        assert loss.isfinite().all(), name
        assert batch.student_logits.grad is not None
        assert batch.student_logits.grad.isfinite().all(), name


def drawn(name: str, options: dict[str, Any], steps: int = 40) -> np.ndarray:
    rule = create_rule(name, options, SETTING)
    return np.concatenate([rule(outputs(500, step=step)).student.numpy() for step in range(steps)])


@pytest.mark.parametrize(
    ("name", "options", "to_uniform"),
    [
        ("random", {"scale": "linear"}, lambda t: (t - 0.5) / 7.5),
        ("random", {}, lambda t: np.log(t / 0.5) / math.log(16)),
        ("random", {"low": 2, "high": 3}, lambda t: np.log(t / 2) / math.log(1.5)),
        ("public_agent", {}, lambda t: normal_share(np.log(t / (10 - t)) / 0.6)),
    ],
)
def test_random_rules_draw_from_their_distribution(
    name: str, options: dict[str, Any], to_uniform: Callable[[np.ndarray], np.ndarray]
) -> None:
    shares = np.sort(to_uniform(drawn(name, options)))
    assert np.abs(shares - np.arange(0.5, len(shares)) / len(shares)).max() < 1.63 / math.sqrt(len(shares))  # 1 %


def normal_share(values: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: (1 + math.erf(value / math.sqrt(2))) / 2)(values)


@pytest.mark.parametrize("name", ["random", "public_agent"])
def test_random_temperatures_follow_from_seed_and_step(name: str) -> None:
    rule = create_rule(name, setting=SETTING)
    first, other = rule(outputs(step=5)).student, rule(outputs(step=6)).student
    torch.rand(3)  # nobody else's draws change anything
    torch.testing.assert_close(rule(outputs(step=5)).student, first, rtol=0, atol=0)
    torch.testing.assert_close(create_rule(name, setting=SETTING)(outputs(step=5)).student, first, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert not torch.equal(first, create_rule(name, setting=RuleSetting(seed=8))(outputs(step=5)).student)


def test_ctkds_gradient_factor_follows_the_curriculum() -> None:
    rule: Any = create_rule("ctkd")
    for epoch in range(10):
        assert rule.gradient_factor(epoch + 0.75) == pytest.approx(-0.5 * (1 - math.cos(math.pi * epoch / 10)))
    assert rule.gradient_factor(0.0) == 0.0
    assert rule.gradient_factor(10) == rule.gradient_factor(math.inf) == -1.0
    none: Any = create_rule("ctkd", {"curriculum_epochs": 0})
    assert none.gradient_factor(0.0) == -1.0


@pytest.mark.parametrize("scope", ["global", "instance"])
@pytest.mark.parametrize("squared", [True, False])
def test_the_divergence_rises_when_theta_alone_is_stepped(scope: str, squared: bool) -> None:
    torch.manual_seed(0)
    rule = create_rule("ctkd", {"scope": scope}, SETTING)
    batch = outputs(epoch=20.0)

    def loss() -> Tensor:
        return kd_loss(batch.student_logits, batch.teacher_logits, rule(batch), squared).mean()

    optimizer = torch.optim.SGD(rule.parameters(), lr=1e-3)
    before = loss()
    for _ in range(5):
        optimizer.zero_grad()
        (now := loss()).backward()
        optimizer.step()
        assert loss() > now
    assert loss() > before
    if scope == "instance":
        assert rule(batch).student.std() > 0


def test_ctkds_network_reads_both_networks_logits() -> None:
    torch.manual_seed(0)
    rule: Any = create_rule("ctkd", {"scope": "instance", "hidden": 16}, SETTING).double()
    torch.nn.init.normal_(rule.network[-1].weight)
    batch = outputs()
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in rule.parameters())
    chosen = rule(batch).student.detach().numpy()
    for value, student, teacher in zip(chosen, batch.student_logits.numpy(), batch.teacher_logits.numpy(), strict=True):
        theta = w2[0] @ np.maximum(w1 @ np.concatenate([teacher, student]) + b1, 0) + b2[0]
        assert value == pytest.approx(1 + 20 / (1 + math.exp(-theta)), rel=1e-10)


@pytest.mark.parametrize("scope", ["global", "instance"])
def test_ctkds_gradient_is_the_losses_own_times_lambda_and_spares_the_student(scope: str) -> None:
    rule: Any = create_rule("ctkd", {"scope": scope}, SETTING)
    gradients = []
    for epoch in (5.0, math.inf):
        batch = outputs(epoch=epoch)
        batch.student_logits.requires_grad_(True)
        rule(batch).student.sum().backward()
        assert batch.student_logits.grad is None
        parameter = rule.theta if scope == "global" else rule.network[-1].bias
        gradients.append(float(parameter.grad))
        rule.zero_grad()
    slope = 20 * math.exp(-1) / (1 + math.exp(-1)) ** 2 * 50
    assert gradients == pytest.approx([-0.5 * slope, -slope], rel=1e-5)


def own_rule(run: DistillationRun, name: str, **options: Any) -> DistillationRun:
    setting = RuleSetting(run.temperature_range, 4.0, run.teacher_deviation, run.splits.num_classes)

    def create(seed: int) -> Rule:
        return create_rule(name, options, RuleSetting(**{**vars(setting), "seed": seed}))

    run.create_policy = create
    return run


LEARNED = [
    ("ctkd", {"scope": "global", "curriculum_epochs": 0}),
    ("ctkd", {"scope": "instance", "curriculum_epochs": 1}),
    ("random", {}),
    ("lskd", {}),
]


@pytest.mark.parametrize(("name", "options"), LEARNED)
def test_a_snapshot_goes_on_bit_for_bit(make_run: MakeRun, name: str, options: dict[str, Any]) -> None:
    run = own_rule(make_run(), name, **options)
    run.reset(3)
    run.advance(steps=5)
    snapshot, fork = run.state_dict(), run.fork()
    straight = run.advance()
    restored = own_rule(make_run(), name, **options)
    restored.load_state_dict(snapshot)
    for other in (restored, fork):
        result = other.advance()
        torch.testing.assert_close(result.temperature.student, straight.temperature.student, rtol=0, atol=0)
        assert other.policy is not run.policy
        for part in ("student", "policy"):
            expected = run.state_dict()[part]
            torch.testing.assert_close(other.state_dict()[part], expected, rtol=0, atol=0)


def test_the_runs_optimiser_trains_ctkd_from_a_fresh_start_each_time(make_run: MakeRun) -> None:
    run = own_rule(make_run(epochs=6), "ctkd", curriculum_epochs=0)
    seen = []
    for _ in range(2):
        run.reset(0)
        policy: Any = run.policy
        assert policy.theta.item() == 1.0
        result = run.advance(steps=8)
        assert not result.temperature.student.requires_grad
        assert policy.theta.item() != 1.0
        seen.append(result.temperature.student)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


def test_a_runs_own_policy_and_its_state_belong_together(make_run: MakeRun) -> None:
    learned, plain = own_rule(make_run(), "ctkd"), make_run()
    for run in (learned, plain):
        run.reset(0)
    with pytest.raises(UsageError, match="policy that learns along"):
        plain.load_state_dict(learned.state_dict())
    with pytest.raises(UsageError, match="policy that learns along"):
        learned.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match="no policy of its own"):
        make_run().advance()


BAD = [
    ("lsk", {}, "unknown rule 'lsk'. Did you mean 'lskd'?"),
    ("lskd", {"tua": 2}, "unknown option of rule 'lskd' 'tua'. Did you mean 'tau'? Valid: correction, gradient, tau"),
    ("lskd", {"tau": 0}, "tau must be positive"),
    ("lskd", {"tau": "fast"}, "tau must be a number"),
    ("lskd", {"tau": True}, "tau must be a number"),
    ("lskd", {"correction": 2}, "must be 0 or 1"),
    ("lskd", {"correction": 0.5}, "whole number of at least 0"),
    ("dtkd", {"gradient": 3}, "must be True or False"),
    ("random", {"seed": 3}, "unknown option of rule 'random' 'seed'"),
    ("random", {"scale": "cubic"}, "unknown temperature scale 'cubic'"),
    ("random", {"low": 11}, "is empty"),
    ("linear", {"first": "hot"}, "'hot' is no temperature"),
    ("linear", {"last": -1}, "must be positive"),
    ("public_agent", {"deviation": -1}, "must not be negative"),
    ("entropy", {"of": "pupil"}, "unknown value for of 'pupil'"),
    ("ttm", {"temperature": 2, "gamma": 2}, "exclude each other"),
    ("ctkd", {"scope": "local"}, "unknown value for scope 'local'"),
    ("ctkd", {"low": 30}, "is empty"),
    ("ctkd", {"start": "now"}, "start must be a number"),
    ("ctkd", {"scope": "instance"}, "number of classes"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_wrong_options_are_told(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        create_rule(name, options)
    assert message in str(error.value)
