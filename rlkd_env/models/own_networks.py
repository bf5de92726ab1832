"""Our own networks by name, of all families."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rlkd_env.models.cnn import CNNS
from rlkd_env.models.digits import DIGITS_NETWORKS
from rlkd_env.models.mobilenet import MOBILENETS
from rlkd_env.models.resnet import RESNETS
from rlkd_env.models.shufflenet import SHUFFLENETS
from rlkd_env.models.vgg import VGGS
from rlkd_env.models.wide_resnet import WIDE_RESNETS
from rlkd_env.registry import Registry

MODELS: Registry[Callable[[int, tuple[int, int, int]], nn.Module]] = Registry("network")
"""Functions of classes and image shape."""
for _family in (DIGITS_NETWORKS, CNNS, RESNETS, WIDE_RESNETS, VGGS, MOBILENETS, SHUFFLENETS):
    for _name, _factory in _family.items():
        MODELS.register(_name)(_factory)
