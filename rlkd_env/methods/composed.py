"""Several methods as one: the task's loss once, and the terms of each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from rlkd_env.data.splits import TaskName
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods.base import Method, Pair, StudentChange
from rlkd_env.utils.options import NonNegative, read_arguments

_OF_ALL = "task_weight"


class Composed(Method):
    """``task_weight`` · the task's own loss + the terms of several methods.

    A method that is KD plus terms of its own adds these alone, so that KD is there if it is named, and once:
    ``kd+rkd`` is RKD with its KL term, ``dkd+rkd`` has DKD's in its place, and with ``at+rkd`` temperatures have no
    effect. The task's weight is that of the first method that is no such addition, or 1.

    Args:
        parts: The methods by the names of the composition.
        task_weight: The weight of the task's own loss.

    Raises:
        UsageError: If more than one of the methods has an optimiser of its own, or one compares two views and another
            reads two heads.
    """

    def __init__(self, parts: Mapping[str, Method], task_weight: float) -> None:
        super().__init__(task_weight)
        self.names, self.parts = list(parts), nn.ModuleList(parts.values())
        self.uses_temperature = any(part.uses_temperature for part in parts.values())
        self.needs_second_view = any(part.needs_second_view for part in parts.values())
        if sum(part.create_optimizer() is not None for part in parts.values()) > 1:
            raise UsageError(f"only one method of {'+'.join(parts)} may have an optimiser of its own")
        if self.needs_second_view and any(part.uses_two_heads for part in parts.values()):
            raise UsageError(f"two heads of the student do not go with two views of an image: part {'+'.join(parts)}")

    def logit_losses(self, outputs: InstanceOutputs, temperature: Temperature) -> dict[str, Tensor]:
        """Return the terms ``(N,)`` of all parts that depend on the temperatures."""
        return self._joined([part.logit_losses(outputs, temperature) for part in self._methods])

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the terms ``(N,)`` of all parts that do not."""
        return self._joined([part.feature_losses(outputs) for part in self._methods])

    def check_networks(self, student: nn.Module, teacher: nn.Module) -> None:
        """Check that every part can compare these networks."""
        for part in self._methods:
            part.check_networks(student, teacher)

    def remark(self, num_logits: int) -> str | None:
        """Return what is worth knowing about the first part of which something is."""
        return next(filter(None, (part.remark(num_logits) for part in self._methods)), None)

    def create_optimizer(self) -> torch.optim.Optimizer | None:
        """Return the optimiser of the part that has one."""
        return next(filter(None, (part.create_optimizer() for part in self._methods)), None)

    def after_update(self, outputs: InstanceOutputs) -> None:
        """Let all parts record the update."""
        for part in self._methods:
            part.gather = self.gather
            part.after_update(outputs)

    @property
    def _methods(self) -> list[Method]:
        return [part for part in self.parts if isinstance(part, Method)]

    def _joined(self, terms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return all terms by name; one whose name is taken has its part's before it."""
        joined: dict[str, Tensor] = {}
        for name, of_part in zip(self.names, terms, strict=True):
            joined |= {f"{name}_{term}" if term in joined else term: value for term, value in of_part.items()}
        return joined


@cache
def composition(name: str, parts: tuple[type[Method], ...]) -> type[Method]:
    """Return the class of a composition ``a+b`` of methods, which takes the options of all of them.

    Those of a part have its name before them (``rkd.feature_weight``), because two may have one of the same name.

    Raises:
        UsageError: If a part is named twice, more than one changes the student, or there is no task that all are for.
    """
    names = name.split("+")
    classes = dict(zip(names, parts, strict=True))
    if len(classes) < len(names):
        raise UsageError(f"method {name!r} names a method twice: name each once")
    if sum(part.changes_student for part in parts) > 1:
        raise UsageError(f"only one method of {name!r} may change the student")
    common = tuple(task for task in parts[0].tasks if all(task in part.tasks for part in parts))
    if not common:
        raise UsageError(f"the methods of {name!r} are for different tasks")

    class Composition(Composed):
        """The composition of these very methods."""

        tasks: tuple[TaskName, ...] = common
        uses_features = any(part.uses_features for part in parts)
        is_stochastic = any(part.is_stochastic for part in parts)
        waits_for_device = any(part.waits_for_device for part in parts)
        changes_student = any(part.changes_student for part in parts)
        uses_two_heads = any(part.uses_two_heads for part in parts)

        @classmethod
        def change_of_student(cls, pair: Pair, options: Mapping[str, Any]) -> StudentChange | None:
            read = read_parts(name, classes, options)
            changes = [part.change_of_student(pair, read[own]) for own, part in classes.items() if part.changes_student]
            return next(iter(changes), None)

        def __init__(self, pair: Pair | None = None, **options: Any) -> None:
            read, task_weight = read_parts(name, classes, options), options.get(_OF_ALL, _task_weight(parts))
            around = {_OF_ALL: float(task_weight)}
            super().__init__({own: _create(classes[own], pair, given) for own, given in read.items()}, **around)

    Composition.__name__ = Composition.__qualname__ = name
    return Composition


def read_parts(name: str, classes: Mapping[str, type[Method]], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each part's own options, brought to their types.

    Raises:
        UsageError: If an option is unknown, or of another type or out of range.
    """
    valid = {f"{own}.{option}": (own, option) for own, method in classes.items() for option in _options(method)}
    given: dict[str, dict[str, Any]] = {own: {} for own in classes}
    for option, value in options.items():
        if option == _OF_ALL:
            read_arguments(_weighted, {_OF_ALL: value})
        elif option in valid:
            own, plain = valid[option]
            given[own][plain] = value
        else:
            raise unknown_name(f"option of method {name!r}", option, [_OF_ALL, *valid])
    return {own: read_arguments(method, given[own]) for own, method in classes.items()}


def _options(method: type[Method]) -> list[str]:
    """Return the names of the options that a method keeps in a composition."""
    gone = {"pair", _OF_ALL} | ({"kd_weight", "temperature_squared"} if method.is_addition else set())
    return [option for option in inspect.signature(method).parameters if option not in gone]


def _create(method: type[Method], pair: Pair | None, options: Mapping[str, Any]) -> Method:
    features = {"pair": pair} if method.uses_features else {}
    alone = {"kd_weight": 0.0} if method.is_addition else {}
    return method(**{**options, **features, **alone})


def _task_weight(parts: tuple[type[Method], ...]) -> float:
    """Return the usual weight of the task's own loss beside these methods."""
    alone = next((part for part in parts if not part.is_addition), None)
    known = None if alone is None else inspect.signature(alone).parameters.get(_OF_ALL)
    return 1.0 if known is None else float(known.default)


def _weighted(task_weight: NonNegative) -> None:
    """Take what every composition takes; its signature says what a weight may be."""
