"""Images that stand twice: in what trains and in what tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from rlkd_env.data.images import ImageSet, MemoryImages


def count_duplicates(train: ImageSet, test: ImageSet) -> int | None:
    """Return how many test images are, pixel for pixel, a training image too.

    Args:
        train: all images that gradients come from.
        test: the images to look for among them.

    Returns:
        Their number, or None where a set is not in memory, as reading it again would take too long.
    """
    if not isinstance(train, MemoryImages) or not isinstance(test, MemoryImages):
        return None
    known = set(_hashes(train))
    return sum(image in known for image in _hashes(test))


def _hashes(images: MemoryImages) -> Iterator[bytes]:
    return (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.pixels.cpu().numpy())
