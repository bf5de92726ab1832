"""VID against its definition, written out with NumPy loops over stages, instances, channels and positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_networks import FlatNetwork, SmallNetwork, frozen_teacher, pair_of, real_outputs
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.vid import VariationalRegressor, gaussian_loss


def by_definition(regressor: VariationalRegressor, student: np.ndarray, teacher: np.ndarray) -> list[float]:
    """Σ over entries of ½ [(μ - t)² / σ² + log σ²] / their number; maps of the same size."""
    first, second, third = (
        layer.weight.detach().double().numpy()[:, :, 0, 0] for layer in regressor.mean if isinstance(layer, nn.Conv2d)
    )
    variance = np.log1p(np.exp(regressor.rho.detach().double().numpy())) + 1e-5
    losses = []
    for s, t in zip(student, teacher, strict=True):
        total = 0.0
        for y in range(t.shape[1]):
            for x in range(t.shape[2]):
                mean = third @ np.maximum(second @ np.maximum(first @ s[:, y, x], 0), 0)
                total += sum(
                    0.5 * ((mean[c] - t[c, y, x]) ** 2 / variance[c] + math.log(variance[c])) for c in range(len(t))
                )
        losses.append(total / t.size)
    return losses


def maps(n: int, *size: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(seed + n), dtype=torch.float64)


@pytest.mark.parametrize("n", [2, 7, 64])
@pytest.mark.parametrize(("student_channels", "teacher_channels"), [(3, 5), (5, 3), (4, 4)])
def test_a_stage_equals_its_definition_per_instance_and_per_batch(
    n: int, student_channels: int, teacher_channels: int
) -> None:
    torch.manual_seed(0)
    regressor = VariationalRegressor(student_channels, teacher_channels).double()
    nn.init.normal_(regressor.rho)
    student, teacher = maps(n, student_channels, 4, 3), maps(n, teacher_channels, 4, 3, seed=1)
    expected = by_definition(regressor, student.numpy(), teacher.numpy())
    computed = regressor(student, teacher).detach()
    np.testing.assert_allclose(computed, expected, rtol=1e-6)
    np.testing.assert_allclose(computed.mean(), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_lower_precision_is_near_the_definition(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    regressor = VariationalRegressor(3, 5).to(dtype)
    student, teacher = maps(7, 3, 4, 4).to(dtype), maps(7, 5, 4, 4, seed=1).to(dtype)
    expected = by_definition(regressor, student.double().numpy(), teacher.double().numpy())
    np.testing.assert_allclose(regressor(student, teacher).detach().double(), expected, rtol=tolerance)


@pytest.mark.parametrize("swap", [False, True])
def test_the_larger_map_is_pooled_to_the_smaller(swap: bool) -> None:
    torch.manual_seed(0)
    regressor = VariationalRegressor(3, 3).double()
    large, small = maps(2, 3, 4, 6), maps(2, 3, 2, 3, seed=1)
    pooled = large.reshape(2, 3, 2, 2, 3, 2).mean(dim=(3, 5))
    pairs = [(small, large), (small, pooled)] if swap else [(large, small), (pooled, small)]
    torch.testing.assert_close(regressor(*pairs[0]), regressor(*pairs[1]))


def test_the_variance_starts_at_5() -> None:
    torch.testing.assert_close(VariationalRegressor(3, 4).variance, torch.full((4,), 5.0))


def test_the_loss_is_the_gaussian_density_without_its_constant() -> None:
    mean, target, variance = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1), torch.tensor([0.5, 1.0, 2.0, 7.0]).double()
    density = torch.distributions.Normal(mean, variance.sqrt()[:, None, None])
    expected = -density.log_prob(target) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(gaussian_loss(mean, variance, target), expected.mean(dim=(1, 2, 3)))


def test_gradcheck_in_map_and_variance() -> None:
    torch.manual_seed(0)
    regressor = VariationalRegressor(2, 3).double()
    teacher = maps(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda s: regressor(s, teacher), maps(2, 2, 4, 4).requires_grad_(True))
    variance = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: gaussian_loss(maps(2, 3, 2, 2), v, teacher), variance)


@pytest.mark.parametrize(("student_widths", "teacher_widths"), [((4, 5), (6, 8)), ((4,), (6, 8, 7)), ((4, 5, 3), (6,))])
def test_the_method_sums_over_the_stages_paired_from_the_end(
    student_widths: tuple[int, ...], teacher_widths: tuple[int, ...]
) -> None:
    student, teacher = SmallNetwork(student_widths), frozen_teacher(teacher_widths)
    outputs = real_outputs(5, student, teacher)
    method = create_method("vid", pair_of(student, teacher), feature_weight=3.0)
    count = min(len(student_widths), len(teacher_widths))
    assert len(method.regressors) == count
    expected = sum(
        method.regressors[-i](outputs.student_features.stages[-i], outputs.teacher_features.stages[-i])
        for i in range(1, count + 1)
    )
    torch.testing.assert_close(method.feature_losses(outputs)["vid"], 3.0 * expected)


def test_networks_without_maps_are_refused() -> None:
    message = "method 'vid' needs networks with feature maps; the {} has none"
    with pytest.raises(UsageError, match=message.format("student")):
        create_method("vid", pair_of(FlatNetwork(), frozen_teacher()))
    with pytest.raises(UsageError, match=message.format("teacher")):
        create_method("vid", pair_of(SmallNetwork((4,)), FlatNetwork()))
