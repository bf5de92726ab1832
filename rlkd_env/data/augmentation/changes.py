"""Random changes of single images by torchvision's transforms: RandAugment, TrivialAugment and random erasing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import AutoAugment

if TYPE_CHECKING:
    from rlkd_env.data.config import DataConfig

_ERASED_IN_SECOND_VIEWS = 0.5
"""Probability; the mean area is then about that of FixMatch's Cutout, whose side is up to half of the image's."""


@dataclass(frozen=True)
class ImageChanges:
    """What happens to an image at random, in this order; by default nothing.

    Attributes:
        auto_augment: ``randaugment`` makes two of fourteen changes of the same strength, ``trivialaugment`` one of a
            random strength; torchvision's own (arXiv 1909.13719 and 2103.10158). They are for pixels from 0 to 1.
        magnitude: The strength of RandAugment's changes, of 31 that there are.
        random_erase: The probability that a rectangle is erased (arXiv 1708.04896): it takes the data's mean colour.
    """

    auto_augment: AutoAugment = "none"
    magnitude: int = 9
    random_erase: float = 0.0

    @classmethod
    def of(cls, config: DataConfig) -> ImageChanges:
        """Return the changes that a config asks for."""
        return cls(config.auto_augment, config.randaugment_magnitude, config.random_erase)

    @property
    def are_made(self) -> bool:
        """Whether there are any."""
        return self.auto_augment != "none" or self.random_erase > 0

    @property
    def stronger(self) -> ImageChanges:
        """The changes of a second view: RandAugment's, and a rectangle erased in half of the images or more."""
        return replace(self, auto_augment="randaugment", random_erase=max(self.random_erase, _ERASED_IN_SECOND_VIEWS))

    def __call__(self, image: Tensor, mean: tuple[float, ...] = ()) -> Tensor:
        """Change one image ``(channels, height, width)``, drawing from torch's generator.

        Args:
            image: Pixels, uint8 or float32 in ``[0, 1]``; those that are normalised already can only be erased.
            mean: The mean of each channel that pixels in ``[0, 1]`` are normalised by; if empty, it is 0.
        """
        for transform in _transforms(self, mean, image.is_floating_point()):
            image = transform(image)
        return image


NO_CHANGES = ImageChanges()


def check_changes(config: DataConfig, made: ImageChanges) -> None:
    """Check that training images have the changes that a config asks for.

    Raises:
        UsageError: If they have not, as those of detectors, or of a data source that knows none.
    """
    if ImageChanges.of(config).are_made and not made.are_made:
        raise UsageError(f"--auto-augment and --random-erase are not for {config.dataset}: leave them away")


@lru_cache(maxsize=64)
def _transforms(changes: ImageChanges, mean: tuple[float, ...], is_float: bool) -> list[Any]:
    from torchvision.transforms import v2  # takes long to import, and most runs make no changes

    transforms: list[Any] = []
    if changes.auto_augment == "randaugment":
        transforms.append(v2.RandAugment(magnitude=changes.magnitude))
    elif changes.auto_augment == "trivialaugment":
        transforms.append(v2.TrivialAugmentWide())
    if changes.random_erase > 0:
        colour = mean or (0.0,)
        values = colour if is_float else [float(round(255 * value)) for value in colour]
        transforms.append(v2.RandomErasing(changes.random_erase, value=list(values)))
    return transforms
