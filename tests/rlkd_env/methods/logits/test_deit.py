"""DeiT's two heads against the paper's equations 2 and 3, written out in float64, and in runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_logits import logits
from small_networks import at_temperature, digits_run, frozen_teacher, small_networks
from torch import Tensor, nn

from rlkd_env.credit.first_order import Gradient, LastLayer
from rlkd_env.data import Batch
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import create_method
from rlkd_env.models import create_model
from rlkd_env.models.transformers.two_heads import has_two_heads
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.parallel import create_parallel_runs
from rlkd_env.tasks.classification import Classification

SHAPE = (1, 8, 8)


def softened(values: Tensor, temperature: float) -> Tensor:
    exponentials = (values / temperature).exp()
    return exponentials / exponentials.sum()


def by_definition(
    hard: bool, student: Tensor, classes: Tensor, teacher: Tensor, labels: Tensor, temperature: Temperature
) -> list[Tensor]:
    """0.5 · cross-entropy of the class token + 0.5 · the distillation token's term, of every instance."""
    losses = []
    for i, label in enumerate(labels.tolist()):
        own = -softened(classes[i], 1.0)[label].log()
        if hard:
            other = -softened(student[i], 1.0)[int(teacher[i].argmax())].log()
        else:
            of_teacher, of_student = float(temperature.teacher[i]), float(temperature.student[i])
            known, said = softened(teacher[i], of_teacher), softened(student[i], of_student)
            other = of_teacher * of_student * sum(p * (p / q).log() for p, q in zip(known, said, strict=True))
        losses.append(0.5 * own + 0.5 * other)
    return losses


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("n", [1, 9])
def test_deit_equals_its_equations_with_the_gradient_of_both_heads(hard: bool, n: int) -> None:
    student, teacher, labels = logits(n, 7)
    classes = logits(n, 7, seed=1)[0].requires_grad_(True)
    student.requires_grad_(True)
    temperature = Temperature(torch.linspace(1.0, 5.0, n).double(), torch.linspace(4.0, 2.0, n).double())
    method = create_method("deit", hard=hard)
    found = sum(method(InstanceOutputs(student, teacher, labels, class_logits=classes), temperature).values())
    expected = torch.stack(by_definition(hard, student, classes, teacher, labels, temperature))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    gradients = [torch.autograd.grad(losses.mean(), (student, classes)) for losses in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("hard", [False, True])
def test_the_class_token_learns_labels_alone_and_the_other_the_teacher_alone(hard: bool) -> None:
    student, teacher, labels = (value.requires_grad_(value.is_floating_point()) for value in logits(6, 5))
    classes = logits(6, 5, seed=1)[0].requires_grad_(True)
    outputs = InstanceOutputs(student, teacher.detach(), labels, class_logits=classes)
    parts = create_method("deit", hard=hard)(outputs, at_temperature(6))
    assert list(parts) == ["task", "hard" if hard else "kd"]
    for part, own, other in zip(parts.values(), (classes, student), (student, classes), strict=True):
        by_own, by_other = torch.autograd.grad(part.sum(), (own, other), allow_unused=True, retain_graph=True)
        assert by_own.abs().min() > 0
        assert by_other is None


def test_hard_distillation_has_no_temperature_and_soft_one_has() -> None:
    assert not create_method("deit", hard=True).uses_temperature
    assert create_method("deit").uses_temperature
    assert (
        create_method("deit", hard=True).logit_losses(
            InstanceOutputs(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)), at_temperature(2)
        )
        == {}
    )


def test_outputs_hold_the_logits_of_both_heads_and_evaluations_their_mean() -> None:
    torch.manual_seed(0)
    student, teacher = create_model("deit64_patch4", 10, SHAPE), frozen_teacher()
    nn.init.normal_(student.head.weight), nn.init.normal_(student.head_dist.weight)
    batch = Batch(torch.randn(5, *SHAPE), torch.arange(5), torch.arange(5), view=0)
    outputs = Classification(reads_two_heads=True, label_smoothing=0.1).forward(student, teacher, batch)
    assert outputs.class_logits is not None
    torch.testing.assert_close((outputs.class_logits + outputs.student_logits) / 2, student(batch.images))
    assert not torch.allclose(outputs.class_logits, outputs.student_logits)
    smoothed = nn.functional.cross_entropy(outputs.class_logits, batch.labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(outputs.task_loss, smoothed)
    assert not any(module._forward_hooks for module in student.modules())


@pytest.mark.slow
def test_a_run_trains_both_heads_and_equal_gradients_are_of_the_distillation_token() -> None:
    config = RunConfig.from_keywords(epochs=4, device="cpu", method="deit", equal_gradients=True)
    run = build_run(config, **small_networks("deit"))
    run.reset(0)
    for _ in range(3):
        assert {"loss_task", "loss_kd"} <= run.step(at_temperature(64)).metrics.keys()
    parts = run.method(run.outputs, at_temperature(64))
    (gradient,) = torch.autograd.grad(parts["kd"].sum(), run.outputs.student_logits, retain_graph=True)
    norms = gradient.norm(dim=-1)
    torch.testing.assert_close(norms, norms.mean().expand(64), rtol=1e-3, atol=1e-6)


def test_joined_with_others_it_has_their_terms_too() -> None:
    run = digits_run("deit+dkd", **{"deit.hard": True})
    assert {"loss_task", "loss_hard", "loss_tckd", "loss_nckd"} <= run.step(at_temperature(64)).metrics.keys()


def test_two_views_are_not_joined_with_two_heads() -> None:
    with pytest.raises(UsageError, match="two heads of the student do not go with two views"):
        create_method("deit+mlkd")


def test_several_students_take_turns() -> None:
    run = digits_run("deit")
    with pytest.raises(UsageError, match="DeiT reads two heads"):
        create_parallel_runs(run.sibling(), 2, "stacked")


@pytest.mark.slow
def test_credits_are_of_the_distillation_token_and_the_last_layers_are_refused() -> None:
    run = digits_run("deit")
    with pytest.raises(UsageError, match="two heads"):
        LastLayer(run).before_update(run, at_temperature(64))
    with run.update.same_draws():
        again = run.update.forward_again(dict(run.student.named_parameters()))
    torch.testing.assert_close(again, run.outputs.student_logits)
    calibrator = Gradient(run)
    calibrator.before_update(run, at_temperature(64, 2.0))
    assert calibrator.credit.abs().max() > 0


class AuthorsOutputs(nn.Module):
    """A network that gives both heads' logits in training and their mean in evaluation, as the authors' does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.head_dist = nn.Linear(64, 8), nn.Linear(8, 10), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Any:
        hidden = self.body(images.flatten(1)).relu()
        first, second = self.head(hidden), self.head_dist(hidden)
        return (first, second) if self.training else (first + second) / 2


def test_networks_that_give_both_logits_in_training_are_read_in_the_same_way() -> None:
    config = RunConfig.from_keywords(epochs=4, device="cpu", method="deit")
    run = build_run(config, teacher=frozen_teacher(), student=AuthorsOutputs)
    run.reset(0)
    first, second = run.student(run.batch.images), run.outputs
    assert has_two_heads(run.student)
    torch.testing.assert_close(first, second.class_logits)
    before = run.student.head_dist.weight.clone()
    run.step(at_temperature(64))
    assert not torch.equal(before, run.student.head_dist.weight)


@pytest.mark.parametrize(
    ("method", "student", "message"),
    [
        ("deit", lambda: frozen_teacher().requires_grad_(True), "not for a SmallNetwork: take --student deit64_patch4"),
        ("deit", lambda: create_model("vit64_patch4", 10, SHAPE), "not for a VisionTransformer"),
        ("deit+dkd", lambda: create_model("cnn4", 10, SHAPE), "not for a SmallCNN"),
        ("kd", AuthorsOutputs, "would not be trained by the method 'kd'"),
    ],
)
def test_students_that_do_not_fit_are_refused(method: str, student: Any, message: str) -> None:
    config = RunConfig.from_keywords(epochs=4, device="cpu", method=method)
    with pytest.raises(UsageError, match=message):
        build_run(config, teacher=frozen_teacher(), student=student)


def test_another_method_trains_the_mean_of_both_heads_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run = build_run(RunConfig.from_keywords(epochs=4, device="cpu", precision="float32"), **small_networks("deit"))
    assert "has a distillation token, of which the method 'kd' makes no use" in capsys.readouterr().err
    run.reset(0)
    torch.testing.assert_close(run.student(run.batch.images), run.outputs.student_logits)
    assert run.outputs.class_logits is None
