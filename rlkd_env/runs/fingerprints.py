"""Hashes of what a run is made from but its settings do not hold: teacher and data."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from rlkd_env.data import Splits
from rlkd_env.models.ensemble import Teachers
from rlkd_env.models.normalization import Renormalized
from rlkd_env.utils.files import tensors_hash

NAMES = {
    "teacher": "teacher",
    "train": "training images",
    "probe": "probe images",
    "validation": "validation images",
    "test": "test images",
}
"""What is hashed, by the keys of the hashes."""


def fingerprints(teacher: nn.Module, splits: Splits) -> dict[str, str]:
    """Return a hash each of a teacher's weights and of the parts of the data: their images, classes and boxes.

    Of images that stay on disk the names and sizes of their files count, of a Dataset its first image. A teacher of
    which only logits are stored is known by these.
    """
    stored = {} if splits.train.teacher_logits is None else {"stored logits": splits.train.teacher_logits}
    parts = {"train": splits.train, "probe": splits.probe, "validation": splits.validation}
    hashes = {name: part.fingerprint() for name, part in parts.items()}
    return {"teacher": tensors_hash({**_weights(teacher), **stored}), **hashes}


def _weights(teacher: nn.Module) -> dict[str, Tensor]:
    """Return a teacher's tensors without what adapts it to the data's normalisation, which is the data's matter."""
    if isinstance(teacher, Renormalized):
        return _weights(teacher.network)
    if isinstance(teacher, Teachers):
        parts = enumerate(map(_weights, teacher.networks))
        return {f"{number}.{name}": tensor for number, part in parts for name, tensor in part.items()}
    return teacher.state_dict()


def changed_parts(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return what differs between two sets of fingerprints, in words; what either lacks is not compared."""
    return [words for key, words in NAMES.items() if key in recorded and recorded[key] != found.get(key, recorded[key])]
