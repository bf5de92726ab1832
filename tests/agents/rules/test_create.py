"""Every rule by its name against its formula in float64, and as the run's own policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rule_outputs import SETTING, outputs, own_rule, softmax

from agents.rules.create import RULES, check_function, create_rule
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.runs.run import DistillationRun

MakeRun = Callable[..., DistillationRun]


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
    ("anneal", {"first": 8, "last": 1, "own_spread": 0}, shared(lambda s, t, y: 8**0.7)),
    (
        "anneal",
        {"first": 8, "last": 1, "shape": "cosine", "own_spread": 0},
        shared(lambda s, t, y: 8 ** ((1 + math.cos(0.3 * math.pi)) / 2)),
    ),
    ("dts", {}, shared(lambda s, t, y: 8 * (1 + math.cos(0.3 * math.pi)) / 2)),
    ("dts", {"first": "2s", "last": "1.9s"}, shared(lambda s, t, y: 3.8)),
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


LEARNED = [
    ("ctkd", {"scope": "global", "curriculum_epochs": 0}),
    ("ctkd", {"scope": "instance", "curriculum_epochs": 1}),
    ("random", {}),
    ("lskd", {}),
]


@pytest.mark.slow
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


BOUNDS = TemperatureRange(0.5, 20.0)


FUNCTIONS = sorted(name for name, kind in RULES.items() if kind.is_function)


@pytest.mark.parametrize("name", ["ctkd", "random", "public_agent"])
def test_rules_that_learn_or_draw_cannot_be_acted_around(name: str) -> None:
    with pytest.raises(UsageError) as error:
        check_function(create_rule(name, setting=SETTING))
    message = str(error.value)
    assert message.startswith(f"no agent can act around the rule {name!r}")
    assert message.endswith(f"Valid: {', '.join(FUNCTIONS)}")
