"""CC against the products of neighbours, in loops."""

from __future__ import annotations

import numpy as np
import torch
from small_networks import SmallNetwork, frozen_teacher, pair_of, real_outputs

from rlkd_env.methods import create_method
from rlkd_env.methods.relations.cc import neighbours_loss


def test_instances_share_the_products_of_neighbours() -> None:
    student, teacher = SmallNetwork((4, 5)), frozen_teacher()
    method = create_method("cc", pair_of(student, teacher), width=3).double()
    outputs = real_outputs(5, student.double(), teacher.double(), torch.float64)
    features = outputs.student_features.pooled, outputs.teacher_features.pooled
    embeddings = zip((method.student_embedding, method.teacher_embedding), features, strict=True)
    s, t = ((values @ layer.weight.T + layer.bias).detach().numpy() for layer, values in embeddings)
    products = [float(np.abs(s[i] - t[i]) @ np.abs(s[i + 1] - t[i + 1])) for i in range(4)]
    term = method.feature_losses(outputs)["cc"].detach().numpy()
    np.testing.assert_allclose(term.mean(), 0.02 * np.mean(products), rtol=1e-9)
    np.testing.assert_allclose(term[0], 0.02 * products[0] / 2 * 5 / 4, rtol=1e-9)
    np.testing.assert_allclose(term[2], 0.02 * (products[1] + products[2]) / 2 * 5 / 4, rtol=1e-9)


def test_a_single_instance_has_no_neighbour() -> None:
    assert neighbours_loss(torch.ones(1, 3), torch.zeros(1, 3)).tolist() == [0.0]
