"""Networks, data and temperatures that Python code gives as objects in place of options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset

from agents.rules import RULES
from experiments.config.choice import PRETRAINED, GivenPolicy
from rlkd_env.data import DATASETS, DataConfig, DataSource
from rlkd_env.data.sources.objects import ArrayObjects, DatasetObjects
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.instances.temperature import parse_bound
from rlkd_env.utils.files import expanded
from rlkd_env.utils.registry import import_outside
from rlkd_env.utils.trust import MODULE_PATH


@dataclass(frozen=True)
class GivenObjects:
    """What Python code gives as objects in place of what options name; None leaves a part to the options."""

    teacher: nn.Module | None = None
    student: Callable[[], nn.Module] | None = None
    data: Callable[[DataConfig], DataSource] | None = None
    temperature: GivenPolicy | None = None

    def names(self) -> list[str]:
        """Return which parts are objects; a summary is not enough to make them again."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


NO_OBJECTS = GivenObjects()
"""What a command line gives."""


def read_objects(
    teacher: Any, student: Any, data: Any, temperature: Any, test: Any, validation: Any
) -> tuple[GivenObjects, dict[str, Any]]:
    """Read the arguments of :func:`experiments.api.distill` that may be objects or names.

    Return the objects, and the options by name, which hold the name of its class in place of an object.
    """
    options, policy = _temperature(temperature)
    source, of_data = _data(data, test, validation)
    options |= of_data | {"teacher": _label(teacher), "student": _label(student)}
    network = None
    if isinstance(teacher, nn.Module):
        network = deepcopy(teacher)  # a run freezes its teacher
    elif isinstance(teacher, list | tuple) and teacher and all(isinstance(one, str | Path) for one in teacher):
        options["teacher"] = [str(one) for one in teacher]
    elif not isinstance(teacher, str | Path):
        raise UsageError(
            f"the teacher must be a torch.nn.Module, a path or a name, or several of the latter, not {teacher!r}"
        )
    return GivenObjects(network, _student_factory(student), source, policy), options


def _student_factory(student: Any) -> Callable[[], nn.Module] | None:
    if isinstance(student, str):
        return None
    if isinstance(student, nn.Module):
        return partial(deepcopy, student)
    if not callable(student):
        raise UsageError(
            f"the student must be a torch.nn.Module, a function that returns one, or a name, not {student!r}"
        )
    return student


def _label(given: Any) -> str:
    """Return what stands for an object among options: a path or name itself, or the name of the object's class."""
    if isinstance(given, str | Path):
        return str(given)
    return str(getattr(given, "__name__", type(given).__name__))


def _data(data: Any, test: Any, validation: Any) -> tuple[Callable[[DataConfig], DataSource] | None, dict[str, Any]]:
    """Return what makes a data source of objects, or None, and the options that tell the data."""
    further = {"test": test, "validation": validation}
    if isinstance(data, tuple | list):
        data = dict(zip(("x_train", "y_train"), _pair(data, "data"), strict=True))
    if isinstance(data, Mapping):
        arrays = dict(data)
        for part, pair in further.items():
            if pair is not None:
                arrays |= dict(zip((f"x_{part}", f"y_{part}"), _pair(pair, part), strict=True))
        return lambda config: ArrayObjects(config, arrays), {"dataset": "arrays"}
    if isinstance(data, Dataset):
        for part, images in further.items():
            if images is not None and not isinstance(images, Dataset):
                raise UsageError(f"{part} must be a torch Dataset, as the data are, not {type(images).__name__}")
        return lambda config: DatasetObjects(config, data, **further), {"dataset": _label(data)}
    for part, images in further.items():
        if images is not None:
            raise UsageError(f"{part} images can be given only with data that are arrays or a torch Dataset")
    if isinstance(data, DataSource):
        return lambda _: data, {"dataset": _label(data)}
    if not isinstance(data, str | Path):
        raise UsageError(
            "the data must be arrays, a torch Dataset, a path, the name of a data set or a DataSource, "
            f"not {type(data).__name__}"
        )
    return None, _named_data(data)


def _pair(pair: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UsageError(f"{name} must be a pair of images and classes, (x, y)")
    return pair[0], pair[1]


def _named_data(data: str | Path) -> dict[str, Any]:
    """Return the options for data by their name or path."""
    if isinstance(data, str) and (data in DATASETS or MODULE_PATH.fullmatch(data)):
        return {"dataset": data}
    path = expanded(data)
    if not path.exists():
        raise unknown_name("data set or path", str(data), DATASETS)
    return {"dataset": "image_folder" if path.is_dir() else "arrays", "data_path": str(path)}


def _temperature(given: Any) -> tuple[dict[str, Any], GivenPolicy | None]:
    """Return the options that say who sets the temperatures, and the object that does if it is one."""
    if given is None:
        return {}, None
    if isinstance(given, int | float | np.number) and not isinstance(given, bool):
        return {"rule": "fixed", "fixed_temperature": float(given)}, None
    if isinstance(given, Path):
        return {"policy": str(given)}, None
    if isinstance(given, str):
        return _named_temperature(given), None
    if isinstance(given, type):
        return _class_of_temperatures(given), None
    if callable(given):
        return {"policy": _label(given)}, GivenPolicy(given, _label(given))
    raise UsageError(f"the temperature must be a number, or a rule, policy or agent, not {given!r}")


def _named_temperature(name: str) -> dict[str, Any]:
    if name in RULES:
        return {"rule": name}
    if name == PRETRAINED:
        return {"agent": name}
    with suppress(UsageError):
        parse_bound(name, 1.0)
        return {"rule": "fixed", "fixed_temperature": name}
    if MODULE_PATH.fullmatch(name):
        return _class_of_temperatures(import_outside(name, "temperature"))
    if Path(name).exists():
        return {"policy": name}
    from agents.sb3 import AGENTS  # stable-baselines3 takes long to import

    if name not in AGENTS:
        raise unknown_name("temperature", name, [PRETRAINED, *RULES, *AGENTS])
    return {"agent": name}


def _class_of_temperatures(kind: Any) -> dict[str, Any]:
    """Return the options for an agent's or rule's class, or for a function that makes a rule."""
    known = sys.modules.get("stable_baselines3.common.base_class")
    if known is None or not isinstance(kind, type) or not issubclass(kind, known.BaseAlgorithm):
        return {"rule": RULES.name_of(kind)}
    from agents.sb3 import AGENTS

    path = f"{kind.__module__.partition('.')[0]}:{kind.__name__}"
    known_names = [name for name, family in AGENTS.items() if family.algorithm == path]
    return {"agent": known_names[0] if known_names else AGENTS.name_of(kind)}
