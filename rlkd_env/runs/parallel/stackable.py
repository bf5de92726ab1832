"""Whether the runs of some ingredients can be computed as one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import Method
from rlkd_env.models.stacking import StackedNetworks
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Classification
from rlkd_env.utils.randomness import is_stochastic, seeded


def why_not_stacked(template: DistillationRun) -> str | None:
    """Return why the runs of these ingredients cannot be stacked, or None if they can.

    What the networks and the method do not show by themselves is tried out on two students and a few instances.
    """
    if not isinstance(template.task, Classification):
        return "only classification is"
    if template.sampler is not None:
        return "exploration and a curriculum choose every run's images apart"
    if template.create_policy is not None:
        return "the run has a policy of its own"
    if template.recipe.clip_grad_norm is not None:
        return "the norm of the gradient is each student's own"
    if template.recipe.auxiliary_weight:
        return "auxiliary logits have a weight in the loss"
    with seeded(0, template.device):
        students = [template.task.engine.prepare(template.create_student()).train() for _ in range(2)]
        method = template.create_method(students[0]).to(template.device)
    return _why_not_student(students, template) or _why_not_method(method, template)


def _why_not_student(students: list[nn.Module], template: DistillationRun) -> str | None:
    student = students[0]
    tensors = [*student.named_parameters(), *student.named_buffers()]
    if not student.state_dict().keys() <= {name for name, _ in tensors}:
        return "the student shares weights between its layers, or has a state that is no tensor"
    train = template.splits.train
    images = template.task.engine.images(train.take(torch.arange(min(4, len(train)))))
    try:
        if is_stochastic(copy.deepcopy(student), images):
            return "the student draws random numbers, as dropout does"
        students = [one.double() for one in students]  # few images' batch norms blow up rounding errors
        images = images.double()
        with seeded(0, template.device):
            is_same = _computes_the_same(StackedNetworks(copy.deepcopy(students)), students, images)
    except Exception as error:  # the user's network may do anything
        return f"torch.func.vmap refuses the student ({(str(error).splitlines() or [type(error).__name__])[0]})"
    return None if is_same else "stacked, the student computes something else than alone"


def _computes_the_same(stacked: StackedNetworks, students: list[nn.Module], images: Tensor) -> bool:
    """Whether stacked students have the logits and statistics of single ones after an update's two passes."""
    found = [stacked(images.repeat(len(students), 1, 1, 1)), *stacked.weights.buffers()]
    expected = [torch.cat([one(images) for one in students])]
    expected += [torch.stack(of_all) for of_all in zip(*(one.buffers() for one in students), strict=True)]
    found[0].sum().backward()
    stacked.eval()
    with torch.no_grad():
        found.append(stacked.forward_shared(images))
        expected.append(torch.stack([one.eval()(images) for one in students]))
    return all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


def _why_not_method(method: Method, template: DistillationRun) -> str | None:
    if method.uses_two_heads:
        return f"the method {type(method).__name__} reads two heads of the student"
    if method.uses_features or list(method.state_dict()):
        return f"the method {type(method).__name__} compares features or has weights or a memory of its own"
    if method.needs_second_view:
        return f"the method {type(method).__name__} compares two views of an image"
    if method.is_stochastic or type(method).after_update is not Method.after_update:
        return f"the method {type(method).__name__} draws random numbers or remembers instances"
    whole, half = (_losses(method, template, count) for count in (8, 4))
    if not torch.allclose(whole[:4], half, rtol=1e-4, atol=1e-6):
        return f"with the method {type(method).__name__} an instance's loss depends on the others in its batch"
    return None


@torch.no_grad()
def _losses(method: Method, template: DistillationRun, count: int) -> Tensor:
    """Return the losses ``(count,)`` of the first ``count`` of eight made-up instances."""
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(2, 8, template.splits.num_classes, generator=generator)
    labels = torch.arange(8) % template.splits.num_classes
    student, teacher, labels = (values[:count].to(template.device) for values in (*logits, labels))
    temperature = Temperature.shared(torch.linspace(1.0, 8.0, 8)[:count].to(template.device))
    return torch.stack(list(method(InstanceOutputs(student, teacher, labels), temperature).values())).sum(dim=0)
