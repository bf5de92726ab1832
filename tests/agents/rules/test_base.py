"""What rules may give: factors, and temperatures of any logits."""

from __future__ import annotations

import torch
from losses import dkd_loss
from rule_outputs import SETTING, outputs

from agents.rules.create import RULES, create_rule
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method, kd_loss


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
