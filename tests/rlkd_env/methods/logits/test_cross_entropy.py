"""The method without a teacher."""

from __future__ import annotations

import torch
from random_logits import logits

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method


def test_cross_entropy_method_ignores_the_teacher() -> None:
    student, teacher, labels = logits(8, 10)
    parts = create_method("cross_entropy")(InstanceOutputs(student, teacher, labels), Temperature.shared(torch.ones(8)))
    assert list(parts) == ["task"]
    torch.testing.assert_close(parts["task"], torch.nn.functional.cross_entropy(student, labels, reduction="none"))
