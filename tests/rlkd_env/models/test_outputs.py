"""Outputs as networks give them."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlkd_env.data import Batch
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model
from rlkd_env.models.outputs import check_batch_of_one, give_logits, logits_hook, read_outputs
from rlkd_env.models.taps.find_taps import add_taps
from rlkd_env.tasks.classification import Classification

SHAPE = (3, 8, 8)


@dataclass
class ModelOutput:
    """As HuggingFace's networks return it."""

    logits: Tensor
    hidden_states: Any = None


Named = namedtuple("Named", ["logits", "aux_logits2", "aux_logits1"])


class Returning(nn.Module):
    """A linear network whose output has another form in training, evaluation, or both."""

    def __init__(self, in_training: Callable[[Tensor], Any], in_evaluation: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 4)
        self.forms = {True: in_training, False: in_evaluation}

    def forward(self, images: Tensor) -> Any:
        return self.forms[self.training](self.head(images.flatten(1)))


def itself(logits: Tensor) -> Tensor:
    return logits


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "attribute": ModelOutput,
    "entry": lambda logits: {"logits": logits, "loss": None},
    "mapping": lambda logits: OrderedDict(out=logits, aux=2 * logits),
    "tuple": lambda logits: (logits, 2 * logits),
    "list": lambda logits: [logits],
    "named": lambda logits: Named(logits, 2 * logits, 3 * logits),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_found_in_every_form(form: str, training: bool) -> None:
    forms = (FORMS[form], itself) if training else (itself, FORMS[form])
    network = give_logits(Returning(*forms), SHAPE).train(training)
    images = torch.rand(2, *SHAPE)
    expected = network.head(images.flatten(1))
    assert torch.equal(network(images), expected)
    assert torch.equal(copy.deepcopy(network)(images), expected)
    assert torch.equal(network.train(not training)(images), expected)
    assert list(network.state_dict()) == ["head.weight", "head.bias"]


def test_a_network_that_returns_logits_stays_as_it_is() -> None:
    network = give_logits(Returning(itself, itself), SHAPE)
    assert logits_hook(network) is None
    assert not network._forward_hooks


def test_there_is_one_hook_however_often_it_is_asked_for() -> None:
    network = give_logits(give_logits(Returning(ModelOutput, ModelOutput), SHAPE), SHAPE)
    assert len(add_taps(network, 4, SHAPE)._forward_hooks) == 1


@pytest.mark.parametrize("form", ["text", {"scores": 1}, None, (), 3])
def test_what_holds_no_logits_is_none(form: Any) -> None:
    assert read_outputs(form) == (None, ())


def test_auxiliary_logits_count_by_their_weight() -> None:
    network = give_logits(Returning(FORMS["named"], itself), SHAPE)
    batch = Batch(torch.rand(5, *SHAPE), torch.arange(5) % 4, torch.arange(5))
    logits = network.head(batch.images.flatten(1))
    main, *others = (nn.functional.cross_entropy(scale * logits, batch.labels, reduction="none") for scale in (1, 2, 3))
    for weight in (0.0, 0.3):
        task = Classification(auxiliary_weight=weight)
        outputs = task.forward(network.train(), Returning(itself, itself).eval(), batch)
        expected = main + weight * sum(others)
        torch.testing.assert_close(outputs.task_loss, expected)
        torch.testing.assert_close(task.training_loss(network, batch), expected.mean())
        copy.deepcopy(network)  # although it has just kept logits with gradients
    outputs = task.forward(network.eval(), Returning(itself, itself).eval(), batch)
    torch.testing.assert_close(outputs.task_loss, main)
    assert not outputs.are_regions


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("googlenet", 96), ("inception_v3", 299)])
def test_torchvisions_networks_keep_their_auxiliary_logits_if_they_are_asked_for(name: str, side: int) -> None:
    shape = (3, side, side)
    network = create_model(f"torchvision/{name}", 5, shape, aux_logits=True)
    assert logits_hook(network) is not None
    batch = Batch(torch.rand(2, *shape), torch.arange(2), torch.arange(2))
    task = Classification(auxiliary_weight=0.4)
    loss = task.training_loss(network.train(), batch)
    loss.backward()
    auxiliary = [value.grad for key, value in network.named_parameters() if "aux" in key.lower()]
    assert auxiliary
    assert all(gradient is not None for gradient in auxiliary)


def test_a_batch_of_one_is_refused_where_batch_norms_see_one_number() -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))
    with pytest.raises(UsageError, match="the student cannot be trained on one image at a time"):
        check_batch_of_one(pooled, torch.rand(1, *SHAPE), "student")
    before = copy.deepcopy(maps := nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 4)))
    check_batch_of_one(maps, torch.rand(1, *SHAPE), "student")
    assert all(torch.equal(one, other) for one, other in zip(maps.buffers(), before.buffers(), strict=True))
