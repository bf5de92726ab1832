"""The registry of our own networks, of all families."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rlkd_env.models.classifiers.cnn import CNNS
from rlkd_env.models.classifiers.digits import DIGITS_NETWORKS
from rlkd_env.models.classifiers.mobilenet import MOBILENETS
from rlkd_env.models.classifiers.resnet import RESNETS
from rlkd_env.models.classifiers.shufflenet import SHUFFLENETS
from rlkd_env.models.classifiers.vgg import VGGS
from rlkd_env.models.classifiers.wide_resnet import WIDE_RESNETS
from rlkd_env.models.transformers.vit import TRANSFORMERS
from rlkd_env.utils.registry import Registry

MODELS: Registry[Callable[[int, tuple[int, int, int]], nn.Module]] = Registry(
    "network",
    {**DIGITS_NETWORKS, **CNNS, **RESNETS, **WIDE_RESNETS, **VGGS, **MOBILENETS, **SHUFFLENETS, **TRANSFORMERS},
)
"""Functions that take the number of classes and the images' shape."""
