"""SRRL against its definition, written out in float64 with NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import FlatNetwork, SmallNetwork, at_temperature, frozen_teacher, pair_of, real_outputs
from torch import nn

from rlkd_env.errors import UsageError
from rlkd_env.methods import SRRL, create_method


def as_double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def by_definition(
    method: SRRL, teacher: nn.Module, student: np.ndarray, target: np.ndarray, logits: np.ndarray
) -> tuple[list[float], list[float]]:
    """MSE(A(f_s), f_t) and MSE(W_t A(f_s), z_t) of every instance; batch norm by the statistics of the batch."""
    convolution, norm, _ = method.adapter
    hidden = student @ as_double(convolution.weight)[:, :, 0, 0].T
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    adapted = np.maximum(hidden * as_double(norm.weight) + as_double(norm.bias), 0)
    judged = adapted @ as_double(teacher.classifier.weight).T + as_double(teacher.classifier.bias)
    feature = [
        sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(y) for x, y in zip(adapted, target, strict=True)
    ]
    logit = [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(y) for x, y in zip(judged, logits, strict=True)]
    return feature, logit


@pytest.mark.parametrize("n", [2, 7, 64])
@pytest.mark.parametrize("student_width", [3, 8, 12])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_srrl_equals_its_definition_per_instance_and_per_batch(
    n: int, student_width: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    student, teacher = SmallNetwork((4, student_width)).to(dtype), frozen_teacher().to(dtype)
    pair = pair_of(student.float(), teacher.float())
    student, teacher = student.to(dtype), teacher.to(dtype)
    method = create_method("srrl", pair, feature_weight=2.0).to(dtype)
    nn.init.normal_(method.adapter[1].weight)
    nn.init.normal_(method.adapter[1].bias)
    outputs = real_outputs(n, student, teacher, dtype)
    expected = by_definition(
        method,
        teacher,
        as_double(outputs.student_features.pooled),
        as_double(outputs.teacher_features.pooled),
        as_double(outputs.teacher_logits),
    )
    parts = method.feature_losses(outputs)
    for name, values in zip(("srrl_feature", "srrl_logits"), expected, strict=True):
        np.testing.assert_allclose(as_double(parts[name]), 2.0 * np.array(values), rtol=tolerance, atol=tolerance / 10)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method = create_method("srrl", pair_of(student, teacher)).double()
    teacher, images = teacher.double(), real_outputs(4, student.double(), teacher.double(), torch.float64)
    features = images.student_features

    def loss(pooled: torch.Tensor) -> torch.Tensor:
        outputs = replace(images, student_features=type(features)((), (), pooled))
        return torch.stack(list(method.feature_losses(outputs).values()))

    assert torch.autograd.gradcheck(loss, features.pooled.detach().requires_grad_(True))


def test_the_teacher_is_no_part_of_the_method_and_gets_no_gradient() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method = create_method("srrl", pair_of(student, teacher))
    sum(method(real_outputs(6, student, teacher), at_temperature(6)).values()).mean().backward()
    assert all(name.startswith("adapter.") for name in method.state_dict())
    assert list(method.children()) == [method.adapter]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_srrl_needs_no_maps() -> None:
    create_method("srrl", pair_of(FlatNetwork(), FlatNetwork()))


def test_on_the_map_the_adapter_comes_before_the_pooling() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method = create_method("srrl", pair_of(student, teacher), on_map=True)
    outputs = real_outputs(6, student, teacher)
    convolution, norm, _ = method.adapter
    hidden = torch.einsum("od,ndhw->nohw", convolution.weight[:, :, 0, 0], outputs.student_features.stages[-1])
    variance = hidden.var(dim=(0, 2, 3), keepdim=True, correction=0)
    hidden = (hidden - hidden.mean(dim=(0, 2, 3), keepdim=True)) / (variance + norm.eps).sqrt()
    adapted = hidden.clamp(min=0).mean(dim=(2, 3))
    parts = method.feature_losses(outputs)
    expected = (adapted - outputs.teacher_features.pooled).pow(2).mean(dim=1)
    torch.testing.assert_close(parts["srrl_feature"], expected)
    expected = (teacher.classifier(adapted) - outputs.teacher_logits).pow(2).mean(dim=1)
    torch.testing.assert_close(parts["srrl_logits"], expected)
    with pytest.raises(UsageError, match="'srrl' needs networks with feature maps"):
        create_method("srrl", pair_of(FlatNetwork(), teacher), on_map=True)
