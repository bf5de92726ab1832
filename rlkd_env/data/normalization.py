"""The constants that images are normalised by: names that the field knows, or the numbers themselves."""

from __future__ import annotations

import math

from rlkd_env.errors import UsageError, unknown_name

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation for pixels from 0 to 1: one number each, or one a channel."""

AUTO = ("auto",)
"""The words for a data set's own constants."""
NORMALIZATIONS: dict[str, Constants] = {
    "none": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5,), (0.5,)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}
"""The usual constants of data sets, and those that families of networks expect (inception: timm's and many vision
transformers')."""


def read_normalization(words: tuple[str, ...]) -> Constants | None:
    """Return the constants that words name, or None for :data:`AUTO`.

    The words are one of :data:`NORMALIZATIONS`, or numbers: the means and then as many standard deviations.

    Raises:
        UsageError: If they are neither.
    """
    if words == AUTO:
        return None
    if len(words) == 1:
        if words[0] not in NORMALIZATIONS:
            raise unknown_name("normalization", words[0], [*AUTO, *NORMALIZATIONS])
        return NORMALIZATIONS[words[0]]
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        numbers = ()
    mean, std = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    if len(numbers) not in (2, 6) or not all(map(math.isfinite, numbers)) or min(std) <= 0:
        raise UsageError(
            "a normalization is a name, or mean and standard deviation, one number each or one for each of three "
            f"channels, not {' '.join(words)}"
        )
    return mean, std


def for_channels(constants: Constants, channels: int) -> Constants:
    """Return constants with one number for each of the channels."""
    mean, std = constants
    if len(mean) not in (1, channels):
        raise UsageError(f"the normalization has {len(mean)} channels, but the images have {channels}")
    return (mean * channels, std * channels) if len(mean) == 1 else constants
