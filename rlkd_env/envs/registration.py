"""The ids of the environments, for ``gym.make`` and ``gym.make_vec``. Imports neither PyTorch nor Gymnasium."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_DATASETS = {
    "Classification": "digits",  # any other by the keyword dataset
    "Digits": "digits",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "FashionMNIST": "fashion_mnist",
    "TinyImageNet": "tiny_imagenet",
    "ImageNet": "imagenet",
    "Arrays": "arrays",
    "ImageFolder": "image_folder",
    "DigitsDetection": "digits_detection",
    "COCO": "coco",
    "VOC": "voc",
    "YOLO": "yolo",
}


def register_envs() -> None:
    """Register ``rlkd/Digits-v0``, ``rlkd/CIFAR100-v0`` and so on; ``rlkd/Classification-v0`` takes any data.

    Actions are normalised. ``rlkd/DigitsFlat-v0`` and so on are the same with flat observations, for clients that take
    an id and no keywords. Ids that are there already stay as they are.
    """
    from gymnasium.envs.registration import register, registry

    from rlkd_env.runs.config import DETECTION_RECIPE, DETECTION_SETS

    for name, dataset in _DATASETS.items():
        recipe = DETECTION_RECIPE if dataset in DETECTION_SETS else {}
        for suffix, observation in (("", "batch"), ("Flat", "flat")):
            if f"rlkd/{name}{suffix}-v0" not in registry:
                register(
                    id=f"rlkd/{name}{suffix}-v0",
                    entry_point="rlkd_env.envs.kd_env:KDEnv",
                    vector_entry_point="rlkd_env.envs.vector_env:KDVectorEnv",
                    kwargs={"dataset": dataset, "action": "normalized", "observation": observation, **recipe},
                )


def register_with_gymnasium() -> None:
    """Register the environments now if Gymnasium has been imported, else when it is: importing it takes a second."""
    if sys.modules.get("gymnasium") is not None:
        register_envs()
    else:
        sys.meta_path.insert(0, _GymnasiumFinder())


class _GymnasiumFinder(MetaPathFinder):
    """Finds Gymnasium where everyone does, and registers the environments once it has been imported."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                register_envs()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
