"""AdaIN: the teacher's evaluation of the student's statistics against a forward that is written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import FlatNetwork, SmallNetwork, at_temperature, frozen_teacher, pair_of, real_outputs
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.adain import adaptive_instance_normalization, channel_statistics


def statistics(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of every instance's channels, in loops."""
    mean = np.array([[channel.sum() / channel.size for channel in instance] for instance in maps])
    variance = np.array(
        [[((c - m) ** 2).sum() / c.size for c, m in zip(x, u, strict=True)] for x, u in zip(maps, mean, strict=True)]
    )
    return mean, np.sqrt(variance + 1e-5)


@pytest.mark.parametrize("n", [2, 7, 64])
@pytest.mark.parametrize("stage", [-2, -1, 0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_adain_equals_its_definition_per_instance_and_per_batch(
    n: int, stage: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method = create_method("adain", pair_of(student, teacher), feature_weight=2.0, statistics_weight=3.0, stage=stage)
    method, student, teacher = method.to(dtype), student.to(dtype), teacher.to(dtype)
    outputs = real_outputs(n, student, teacher, dtype)
    parts = method.feature_losses(outputs)

    own = outputs.teacher_features.stages[stage].double()
    weight, bias = method.adapter.weight.detach().double()[:, :, 0, 0], method.adapter.bias.detach().double()
    student_map = outputs.student_features.stages[stage].detach().double()
    adapted = torch.einsum("oc,nchw->nohw", weight, student_map) + bias[:, None, None]
    mean, deviation = statistics(adapted.numpy())
    own_mean, own_deviation = statistics(own.numpy())
    expected = ((mean - own_mean) ** 2 + (deviation - own_deviation) ** 2).mean(axis=1)
    np.testing.assert_allclose(
        parts["adain_statistics"].detach().double(), 3.0 * expected, rtol=tolerance, atol=tolerance / 10
    )

    replaced = (own.numpy() - own_mean[..., None, None]) / own_deviation[..., None, None]
    replaced = torch.from_numpy(replaced * deviation[..., None, None] + mean[..., None, None])
    teacher = teacher.double()
    behind = teacher.stages[1](replaced) if stage in (-2, 0) else replaced
    logits = teacher.classifier(behind.mean(dim=(2, 3))).numpy()
    expected = ((logits - outputs.teacher_logits.double().numpy()) ** 2).mean(axis=1)
    np.testing.assert_allclose(
        parts["adain_logits"].detach().double(), 2.0 * expected, rtol=tolerance, atol=tolerance / 10
    )


def test_normalised_maps_have_the_wanted_statistics() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    mean, deviation = torch.randn(3, 4, 1, 1).double(), torch.rand(3, 4, 1, 1).double() + 0.5
    found_mean, found_deviation = channel_statistics(adaptive_instance_normalization(maps, mean, deviation))
    torch.testing.assert_close(found_mean, mean)
    torch.testing.assert_close(found_deviation, deviation, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adaptive_instance_normalization(maps, *channel_statistics(maps)), maps)


def test_the_teacher_as_its_own_student_costs_nothing() -> None:
    teacher = frozen_teacher()
    method = create_method("adain", pair_of(teacher, teacher))
    torch.nn.init.dirac_(method.adapter.weight)
    torch.nn.init.zeros_(method.adapter.bias)
    for part in method.feature_losses(real_outputs(5, teacher, teacher)).values():
        torch.testing.assert_close(part, torch.zeros(5), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_gradcheck() -> None:
    torch.manual_seed(0)
    student, teacher = SmallNetwork((2, 3)), frozen_teacher((3, 4))
    method = create_method("adain", pair_of(student, teacher)).double()
    outputs = real_outputs(2, student.double(), teacher.double(), torch.float64)
    features = outputs.student_features

    def loss(student_map: Tensor) -> Tensor:
        given = type(features)((student_map, features.stages[1].detach()), (), features.pooled)
        return torch.stack(list(method.feature_losses(replace(outputs, student_features=given)).values()))

    assert torch.autograd.gradcheck(loss, features.stages[0].detach().requires_grad_(True))


def test_constant_maps_give_no_nan() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    with torch.no_grad():
        for network in (student, teacher):
            network.stages[0][0].weight.zero_()
    parts = create_method("adain", pair_of(student, teacher))(real_outputs(4, student, teacher), at_temperature(4))
    sum(parts.values()).sum().backward()
    assert all(part.isfinite().all() for part in parts.values())
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())


def test_only_the_layers_behind_the_stage_build_a_graph_and_the_teacher_gets_no_gradient() -> None:
    student, teacher = SmallNetwork((4, 5, 6)), frozen_teacher((6, 8, 7))
    outputs = real_outputs(4, student, teacher)
    method = create_method("adain", pair_of(student, teacher))
    has_graph: list[bool] = []
    for stage in teacher.stages:
        stage[0].register_forward_hook(lambda module, inputs, output: has_graph.append(output.requires_grad))
    sum(method.feature_losses(outputs).values()).sum().backward()
    assert has_graph == [False, False, True]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert set(method.state_dict()) == {"adapter.weight", "adapter.bias"}
    assert student.stages[1][0].weight.grad.abs().sum() > 0
    assert student.stages[2][0].weight.grad is None


def test_networks_without_the_stage_are_refused() -> None:
    with pytest.raises(UsageError, match="stage -2, but the student has only 1"):
        create_method("adain", pair_of(SmallNetwork((4,)), frozen_teacher()))
    create_method("adain", pair_of(SmallNetwork((4,)), frozen_teacher()), stage=-1)
    with pytest.raises(UsageError, match="method 'adain' needs networks with feature maps; the teacher has none"):
        create_method("adain", pair_of(SmallNetwork((4, 5)), FlatNetwork()))
