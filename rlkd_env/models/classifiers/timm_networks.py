"""The classifiers of timm, where it is installed."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from typing import Any

from torch import nn

from rlkd_env.errors import UsageError, missing_package

PREFIX = "timm/"
_LOADING = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Options by which timm would read a file that is not ours to check; some of its versions unpickle it."""


def check_timm(name: str) -> None:
    """Check a name without the prefix.

    Raises:
        UsageError: If timm is not installed, or does not know the name.
    """
    if find_spec("timm") is None:
        raise missing_package(f"the network {PREFIX}{name}", "timm")
    import timm

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UsageError(f"unknown timm network {name!r}.{hint} timm.list_models() lists all")


def create_timm(name: str, num_classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    """Create one of timm's classifiers; the options are further arguments, such as ``pretrained`` or ``drop_rate``.

    Networks of a fixed image size are built for the size of the images.

    Raises:
        UsageError: If the name or an option is unknown, the options do not fit the images, or pretrained weights cannot
            be had.
    """
    if found := _LOADING & options.keys():
        raise UsageError(
            f"timm's {name} cannot have the option {min(found)}, by which timm would read a file itself: name the file "
            f"(--teacher FILE --teacher-model {PREFIX}{name})"
        )
    check_timm(name)
    import timm

    channels, height, width = image_shape
    given = {"num_classes": num_classes, "in_chans": channels, **options}
    defaults = timm.get_pretrained_cfg(name)
    if defaults is not None and defaults.fixed_input_size:
        given = {"img_size": (height, width), **given}
    try:
        network: nn.Module = timm.create_model(name, **given)
    except Exception as error:  # of the Hub's client, of the network, and of timm
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "; bring its weights as a file, or train it with rlkd teacher" if given.get("pretrained") else ""
        raise UsageError(f"timm's {name} cannot be made for images of shape {image_shape}: {reason}{hint}") from error
    return network
