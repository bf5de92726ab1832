"""CAT-KD's class activation maps and their difference."""

from __future__ import annotations

import pytest
import torch
from small_networks import FlatNetwork, SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.errors import UsageError
from rlkd_env.methods import create_method
from rlkd_env.methods.features.catkd import class_activation_maps


def test_the_mean_of_a_class_map_and_the_bias_are_its_logit() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    outputs = real_outputs(3, student, teacher)
    logits = class_activation_maps(outputs.student_features).mean(dim=(2, 3)) + student.classifier.bias
    torch.testing.assert_close(logits, outputs.student_logits)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_loss_is_the_mean_squared_difference_of_the_pooled_maps(normalized: bool) -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    outputs = real_outputs(3, student, teacher)
    method = create_method("catkd", pair_of(student, teacher), normalized=normalized)
    maps = []
    for features, network in ((outputs.student_features, student), (outputs.teacher_features, teacher)):
        cells = features.stages[-1].unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean(dim=(3, 5))
        of_classes = torch.einsum("cd,ndhw->nchw", network.classifier.weight, cells)
        maps.append(of_classes / of_classes.norm(dim=(2, 3), keepdim=True) if normalized else of_classes)
    expected = 15.0 * (maps[0] - maps[1]).pow(2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(method.feature_losses(outputs)["catkd"], expected)


@pytest.mark.parametrize("name", ["catkd", "sdd"])
def test_networks_whose_classifier_reads_something_else_are_refused(name: str) -> None:
    class Scaled(SmallNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.classifier(2.0 * self.stages(images).mean(dim=(2, 3)))

    with pytest.raises(UsageError, match=f"{name}.*the student's does not read the mean of that map"):
        create_method(name, pair_of(Scaled((4, 5)), frozen_teacher()))
    with pytest.raises(UsageError, match="needs networks with feature maps; the teacher has none"):
        create_method(name, pair_of(SmallNetwork((4, 5)), FlatNetwork()))
