"""Mixes of two training images by torchvision's transforms: mixup (arXiv 1710.09412) and CutMix (1905.04899)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkd_env.utils.randomness import generators_kept, seed_generators


class Mixing:
    """Mixes every image of a batch with the one before it, all with the same share.

    The share follows a Beta distribution with both parameters alpha; with CutMix it is that of a rectangle's area. If
    both are asked for, a fair draw decides for every batch, as in torchvision's own training recipes.

    Args:
        mixup_alpha: The parameter of mixup; 0 does without.
        cutmix_alpha: The parameter of CutMix, likewise; one of them is above 0.
    """

    def __init__(self, mixup_alpha: float, cutmix_alpha: float) -> None:
        from torchvision.transforms import v2  # takes long to import, and most runs mix nothing

        self._transforms: list[Any] = []
        if mixup_alpha:
            self._transforms.append(v2.MixUp(alpha=mixup_alpha))
        if cutmix_alpha:
            self._transforms.append(v2.CutMix(alpha=cutmix_alpha))

    def __call__(self, images: Tensor, seed: int) -> tuple[Tensor, float]:
        """Mix images ``(N, channels, height, width)``; all draws follow from the seed.

        Returns:
            The mixes ``(N, channels, height, width)``, of the images and those that roll by one, and the images' share
            in them, from 0 to 1.
        """
        with generators_kept():
            seed_generators(seed)
            transform = self._transforms[int(torch.randint(len(self._transforms), ()))]
            drawn = transform.make_params([images])
        share = drawn["lam"] if "lam" in drawn else drawn["lam_adjusted"]
        return transform.transform(images, {"labels": None, "batch_size": len(images), **drawn}), share
