"""SDD against KD of every region, in loops."""

from __future__ import annotations

import pytest
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method, kd_loss


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_it_is_kd_of_all_regions_and_complementary_ones_count_twice(scales: int) -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    pair = pair_of(student, teacher)
    outputs = real_outputs(32, student.double(), teacher.double(), torch.float64)
    temperature = Temperature.shared(torch.linspace(1.0, 8.0, 32).double())
    whole_is_right = outputs.teacher_logits.argmax(dim=-1) == outputs.labels
    total, count, doubled = kd_loss(outputs.student_logits, outputs.teacher_logits, temperature), 1, 0
    for side in [2, 4][: scales - 1]:
        for row in range(side):
            for column in range(side):
                of_student, of_teacher = (
                    network.classifier(features.stages[-1].unflatten(2, (side, -1)).unflatten(4, (side, -1))
                                       .mean(dim=(3, 5))[:, :, row, column])
                    for network, features in ((student, outputs.student_features), (teacher, outputs.teacher_features))
                )  # fmt: skip
                twice = (of_teacher.argmax(dim=-1) == outputs.labels) != whole_is_right
                total = total + (1.0 + twice) * kd_loss(of_student, of_teacher, temperature)
                count, doubled = count + 1, doubled + int(twice.sum())
    terms = create_method("sdd", pair, scales=scales).logit_losses(outputs, temperature)
    torch.testing.assert_close(sum(terms.values()), 0.9 * total / count)
    assert doubled > 0 or scales == 1


def test_the_students_classifier_learns_from_regions_and_the_teachers_does_not() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method, outputs = create_method("sdd", pair_of(student, teacher)), real_outputs(8, student, teacher)
    regions = method.logit_losses(outputs, Temperature.shared(torch.full((8,), 4.0)))["sdd_regions"]
    regions.sum().backward()
    assert student.classifier.weight.grad.abs().sum() > 0
    assert teacher.classifier.weight.grad is None
    assert list(method.parameters()) == []
