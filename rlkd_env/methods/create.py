"""Methods by name. To add one, write a subclass of ``Method`` in a file of its own and add a line to ``METHODS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.utils.options import read_arguments
from rlkd_env.utils.registry import Registry, subclass_of

if TYPE_CHECKING:
    from rlkd_env.methods.base import Method, Pair, StudentChange

METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "kd": "rlkd_env.methods.logits.kd:KD",
        "dkd": "rlkd_env.methods.logits.dkd:DKD",
        "cross_entropy": "rlkd_env.methods.logits.cross_entropy:CrossEntropy",
        "dist": "rlkd_env.methods.logits.dist:DIST",
        "mlkd": "rlkd_env.methods.logits.mlkd:MLKD",
        "crld": "rlkd_env.methods.logits.crld:CRLD",
        "sdd": "rlkd_env.methods.logits.sdd:SDD",
        "deit": "rlkd_env.methods.logits.deit:DeiT",
        "fitnet": "rlkd_env.methods.features.fitnet:FitNet",
        "at": "rlkd_env.methods.features.at:AT",
        "nst": "rlkd_env.methods.features.nst:NST",
        "ofd": "rlkd_env.methods.features.ofd:OFD",
        "reviewkd": "rlkd_env.methods.features.reviewkd:ReviewKD",
        "catkd": "rlkd_env.methods.features.catkd:CATKD",
        "kdsvd": "rlkd_env.methods.features.kdsvd:KDSVD",
        "vid": "rlkd_env.methods.features.vid:VID",
        "srrl": "rlkd_env.methods.features.srrl:SRRL",
        "adain": "rlkd_env.methods.features.adain:AdaIN",
        "simkd": "rlkd_env.methods.features.simkd:SimKD",
        "pkt": "rlkd_env.methods.relations.pkt:PKT",
        "sp": "rlkd_env.methods.relations.sp:SP",
        "rkd": "rlkd_env.methods.relations.rkd:RKD",
        "cc": "rlkd_env.methods.relations.cc:CC",
        "crd": "rlkd_env.methods.relations.crd:CRD",
        "box": "rlkd_env.methods.detection.box:BoundedBoxes",
        "fpn": "rlkd_env.methods.detection.fpn:FPN",
        "fgd": "rlkd_env.methods.detection.fgd:FGD",
        "ld": "rlkd_env.methods.detection.ld:LD",
        "icd": "rlkd_env.methods.detection.icd.method:ICD",
    },
    subclass_of("rlkd_env.methods.base:Method"),
)


def check_method(name: str, options: dict[str, Any]) -> type[Method]:
    """Return the class of a method that takes these options.

    Names joined by ``+`` are a composition, whose class is :class:`~rlkd_env.methods.composed.Composed`.

    Raises:
        UsageError: if the method or one of its options is unknown, or an option is of another type or out of range.
    """
    return _find(name, options)[0]


def _find(name: str, options: dict[str, Any]) -> tuple[type[Method], dict[str, Any]]:
    """Return a method's class, and its options brought to their types."""
    if "+" in name:
        from rlkd_env.methods.composed import composition, read_parts

        classes = {part: METHODS[part] for part in name.split("+")}
        composed = composition(name, tuple(METHODS[part] for part in name.split("+")))
        read_parts(name, classes, options)
        return composed, options
    method = METHODS[name]
    valid = [option for option in inspect.signature(method).parameters if option != "pair"]
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of method {name!r}", option, valid)
    try:
        return method, read_arguments(method, options)
    except UsageError as error:
        raise UsageError(f"method {name!r}: {error}") from None


def create_method(name: str | type[Method], pair: Pair | None = None, **options: Any) -> Method:
    """Create a method.

    Args:
        name: a name in :data:`METHODS`, ``package.module:name``, several of them joined by ``+``, or a subclass of
            ``Method``.
        pair: the networks and the data, for methods that compare features.
        options: arguments of that method.

    Raises:
        UsageError: if the method or one of its options is unknown, or the method does not fit the networks.
        ValueError: if the method compares features and there is no pair.
    """
    method, options = _find(METHODS.name_of(name), options)
    factory: Callable[..., Method] = method
    if not method.uses_features:
        return factory(**options)
    if pair is None:
        raise ValueError(f"the method {name!r} compares features: give it a Pair")
    return factory(pair=pair, **options)


def change_of_student(name: str | type[Method], pair: Pair, **options: Any) -> StudentChange | None:
    """Return how a method with these options changes every fresh student, or None if it leaves it as it is.

    Args:
        name: as for :func:`create_method`.
        pair: the plain student and the teacher.
        options: arguments of that method.

    Raises:
        UsageError: if the method or one of its options is unknown, or the method does not fit the networks.
    """
    method, options = _find(METHODS.name_of(name), options)
    return method.change_of_student(pair, options)
