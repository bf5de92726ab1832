"""Knowledge-distillation runs as Gymnasium environments: the agent sets every training instance's temperature.

Importing this package registers ``rlkd/Digits-v0``, ``rlkd/CIFAR100-v0`` and so on for ``gym.make`` and
``gym.make_vec``; ``rlkd/Classification-v0`` takes any data. Where Gymnasium is not installed nothing is registered and
the rest works.
"""

from __future__ import annotations

from importlib.util import find_spec

from rlkd_env.errors import UsageError

if find_spec("gymnasium") is not None:
    from gymnasium.envs.registration import register

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
    }
    _DETECTION_RECIPE = {  # the defaults are those of Digits
        "epochs": 20,
        "optimizer": "adam",
        "learning_rate": 0.003,
        "weight_decay": 1e-4,
        "method_options": {"task_weight": 1.0, "kd_weight": 1.0},
        "reward": "train_progress",
    }
    for _name, _dataset in _DATASETS.items():
        _recipe = _DETECTION_RECIPE if _name in ("DigitsDetection", "COCO", "VOC") else {}
        register(
            id=f"rlkd/{_name}-v0",
            entry_point="rlkd_env.envs.kd_env:KDEnv",
            vector_entry_point="rlkd_env.envs.vector_env:KDVectorEnv",
            kwargs={"dataset": _dataset, **_recipe},
        )

__all__ = ["UsageError"]
