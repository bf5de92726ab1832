"""Knowledge-distillation methods, one file each. A new method is a file here and a line in ``METHODS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rlkd_env.errors import unknown_name
from rlkd_env.methods.adain import AdaIN
from rlkd_env.methods.base import Method, Pair
from rlkd_env.methods.crd import CRD
from rlkd_env.methods.cross_entropy import CrossEntropy
from rlkd_env.methods.dkd import DKD, decoupled_divergences
from rlkd_env.methods.fpn import FPN
from rlkd_env.methods.icd.method import ICD
from rlkd_env.methods.kd import KD, kd_loss
from rlkd_env.methods.pkt import PKT, pkt_loss
from rlkd_env.methods.sp import SP, sp_loss
from rlkd_env.methods.srrl import SRRL
from rlkd_env.methods.vid import VID
from rlkd_env.utils.registry import Registry

METHODS: Registry[type[Method]] = Registry("method")
METHODS.register("kd")(KD)
METHODS.register("dkd")(DKD)
METHODS.register("pkt")(PKT)
METHODS.register("sp")(SP)
METHODS.register("vid")(VID)
METHODS.register("crd")(CRD)
METHODS.register("srrl")(SRRL)
METHODS.register("adain")(AdaIN)
METHODS.register("fpn")(FPN)
METHODS.register("icd")(ICD)
METHODS.register("cross_entropy")(CrossEntropy)


def check_method(name: str, options: dict[str, Any]) -> type[Method]:
    """Return the class of a method that takes these options.

    Raises:
        UsageError: if the method or one of its options is unknown.
    """
    method = METHODS[name]
    valid = [option for option in inspect.signature(method).parameters if option != "pair"]
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of method {name!r}", option, valid)
    return method


def create_method(name: str, pair: Pair | None = None, **options: Any) -> Method:
    """Create a KD method by name.

    Args:
        name: a name in :data:`METHODS`.
        pair: the networks and the data, for methods that compare features.
        options: arguments of that method.

    Raises:
        UsageError: if the method or one of its options is unknown, or the method does not fit the networks.
        ValueError: if the method compares features and there is no pair.
    """
    method = check_method(name, options)
    factory: Callable[..., Method] = method
    if not method.uses_features:
        return factory(**options)
    if pair is None:
        raise ValueError(f"the method {name!r} compares features: give it a Pair")
    return factory(pair=pair, **options)


__all__ = [
    "CRD",
    "DKD",
    "FPN",
    "ICD",
    "KD",
    "METHODS",
    "PKT",
    "SP",
    "SRRL",
    "VID",
    "AdaIN",
    "CrossEntropy",
    "Method",
    "Pair",
    "check_method",
    "create_method",
    "decoupled_divergences",
    "kd_loss",
    "pkt_loss",
    "sp_loss",
]
