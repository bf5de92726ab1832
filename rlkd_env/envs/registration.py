"""The ids of the environments, for ``gym.make`` and ``gym.make_vec``. Imports no PyTorch."""

from __future__ import annotations

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
_DETECTION_RECIPE = {  # the defaults of RunConfig are those of Digits
    "epochs": 20,
    "optimizer": "adam",
    "learning_rate": 0.003,
    "weight_decay": 1e-4,
    "method_options": {"task_weight": 1.0, "kd_weight": 1.0},
    "reward": "train_progress",
}


def register_envs() -> None:
    """Register ``rlkd/Digits-v0``, ``rlkd/CIFAR100-v0`` and so on; ``rlkd/Classification-v0`` takes any data."""
    for name, dataset in _DATASETS.items():
        recipe = _DETECTION_RECIPE if name in ("DigitsDetection", "COCO", "VOC") else {}
        register(
            id=f"rlkd/{name}-v0",
            entry_point="rlkd_env.envs.kd_env:KDEnv",
            vector_entry_point="rlkd_env.envs.vector_env:KDVectorEnv",
            kwargs={"dataset": dataset, **recipe},
        )
