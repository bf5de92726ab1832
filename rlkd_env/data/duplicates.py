"""Detection of images that are both in the training and in the test set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from rlkd_env.data.images import ImageSet, MemoryImages


def count_duplicates(train: ImageSet, test: ImageSet) -> int | None:
    """Return the number of test images that are, pixel for pixel, also training images.

    It is None if a set is not in memory, because reading it again would take too long.
    """
    if not isinstance(train, MemoryImages) or not isinstance(test, MemoryImages):
        return None
    known = set(_hashes(train))
    return sum(image in known for image in _hashes(test))


def _hashes(images: MemoryImages) -> Iterator[bytes]:
    return (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.pixels.cpu().numpy())
