"""DIST against NumPy's correlations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_logits import logits

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method


def probabilities(values: torch.Tensor, temperatures: torch.Tensor) -> np.ndarray:
    powers = np.exp(values.numpy() / temperatures.numpy()[:, None])
    return powers / powers.sum(axis=1, keepdims=True)


def test_both_terms_are_correlations_at_every_instances_own_temperatures() -> None:
    student, teacher, labels = logits(9, 5)
    temperature = Temperature(torch.linspace(1.0, 6.0, 9).double(), torch.linspace(4.0, 2.0, 9).double())
    method = create_method("dist", beta=2.0, gamma=3.0)
    parts = method.logit_losses(InstanceOutputs(student, teacher, labels), temperature)
    s, t = probabilities(student, temperature.student), probabilities(teacher, temperature.teacher)
    factor = (temperature.teacher * temperature.student).numpy()
    between = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)]
    np.testing.assert_allclose(parts["dist_between"], 2.0 * factor * between, rtol=1e-6)
    # Without the factor, the mean over the instances is that over the classes.
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)])
    np.testing.assert_allclose((parts["dist_within"].numpy() / factor).mean(), 3.0 * within, rtol=1e-6)


@pytest.mark.parametrize("temperature_squared", [False, True])
def test_gradcheck(temperature_squared: bool) -> None:
    student, teacher, labels = logits(4, 3)
    method = create_method("dist", temperature_squared=temperature_squared)
    temperature = Temperature.shared(torch.linspace(2.0, 4.0, 4).double())

    def loss(given: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(method.logit_losses(InstanceOutputs(given, teacher, labels), temperature).values()))

    assert torch.autograd.gradcheck(loss, student.requires_grad_(True))


def test_correlations_do_not_see_the_scale_of_the_probabilities_but_their_order() -> None:
    _, teacher, labels = logits(6, 4)
    temperature = Temperature.shared(torch.ones(6).double())
    same = create_method("dist").logit_losses(InstanceOutputs(teacher + 1.0, teacher, labels), temperature)
    torch.testing.assert_close(sum(same.values()).mean(), torch.tensor(0.0).double(), rtol=0, atol=1e-6)
    reversed_order = create_method("dist").logit_losses(InstanceOutputs(-teacher, teacher, labels), temperature)
    assert (reversed_order["dist_between"] > 2.0).all()
