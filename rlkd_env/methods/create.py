"""Methods by name. To add one, write a subclass of ``Method`` in a file of its own and add a line to ``METHODS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.options import read_arguments
from rlkd_env.utils.registry import Registry, subclass_of

if TYPE_CHECKING:
    from rlkd_env.methods.base import Method, Pair

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "kd": "rlkd_env.methods.kd:KD",
        "dkd": "rlkd_env.methods.dkd:DKD",
        "pkt": "rlkd_env.methods.pkt:PKT",
        "sp": "rlkd_env.methods.sp:SP",
        "vid": "rlkd_env.methods.vid:VID",
        "crd": "rlkd_env.methods.crd:CRD",
        "srrl": "rlkd_env.methods.srrl:SRRL",
        "adain": "rlkd_env.methods.adain:AdaIN",
        "fpn": "rlkd_env.methods.fpn:FPN",
        "icd": "rlkd_env.methods.icd.method:ICD",
        "cross_entropy": "rlkd_env.methods.cross_entropy:CrossEntropy",
    },
    subclass_of("rlkd_env.methods.base:Method"),
)


def check_method(name: str, options: dict[str, Any]) -> type[Method]:
    """Return the class of a method that takes these options.

    Raises:
        UsageError: if the method or one of its options is unknown, or an option is of another type or out of range.
    """
    method = METHODS[name]
    valid = [option for option in inspect.signature(method).parameters if option != "pair"]
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of method {name!r}", option, valid)
    _read(name, method, options)
    return method


def _read(name: str, method: type[Method], options: dict[str, Any]) -> dict[str, Any]:
    """Bring a method's options to their types."""
    try:
        return read_arguments(method, options)
    except UsageError as error:
        raise UsageError(f"method {name!r}: {error}") from None


def create_method(name: str | type[Method], pair: Pair | None = None, **options: Any) -> Method:
    """Create a method.

    Args:
        name: a name in :data:`METHODS`, ``package.module:name``, or a subclass of ``Method``.
        pair: the networks and the data, for methods that compare features.
        options: arguments of that method.

    Raises:
        UsageError: if the method or one of its options is unknown, or the method does not fit the networks.
        ValueError: if the method compares features and there is no pair.
    """
    path = METHODS.name_of(name)
    method = check_method(path, options)
    options = _read(path, method, options)
    factory: Callable[..., Method] = method
    if not method.uses_features:
        return factory(**options)
    if pair is None:
        raise ValueError(f"the method {name!r} compares features: give it a Pair")
    return factory(pair=pair, **options)
