"""Data sets of frozen features: cheap tasks on which temperatures matter as they do for convolutional students.

Fully connected students on features of a teacher's first stages are trained by the dozen in seconds, and rank
temperature rules as convolutional students on the images do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkd_env.data import DataConfig, FeatureImages, ImageSet, LabelledSource, create_source
from rlkd_env.errors import UsageError
from rlkd_env.models.storage import load_network
from rlkd_env.models.taps.features import forward_with_features
from rlkd_env.training.teacher import cache_folder, cached
from rlkd_env.utils.files import expanded, read_tensors, tensors_hash, write_tensors
from rlkd_env.utils.options import Count, NonNegative, NonNegativeInt, Options

_CHUNK = 250
_SIDE = 4
_LEAST_DEVIATION = 1e-6
Part = Literal["train", "test"]


@dataclass(frozen=True)
class FrozenFeaturesConfig(Options):
    """Which features of the images of a data set stand in their place, and which of its classes."""

    network: str | None = None
    """File of the network whose features they are and whose logits are the teacher's, in the folder of the data;
    None takes the pixels, and no logits."""
    model: str | None = None
    """Name of that network, needed for files of weights alone."""
    stage: NonNegativeInt = 0
    """Stage of the network whose map is averaged to 4 by 4 positions; 0 takes the pixels as they are."""
    components: Count = 128
    """Number of principal components, each scaled to deviation 1."""
    noise: NonNegative = 0.5
    """Deviation of the noise in random views, in place of crops and flips."""
    num_classes: Count | None = None
    """Number of classes, drawn from those of the data set; None takes all."""
    class_seed: NonNegativeInt = 0
    """Seed by which they are drawn."""


class FrozenFeatures(LabelledSource):
    """Features of the images of another data set, computed once and cached as teachers are.

    The features follow from all its training images, the parts from the settings, as with the images themselves.
    """

    default_teacher = "mlp64"
    default_student = "mlp64"

    def __init__(self, config: DataConfig, features: FrozenFeaturesConfig) -> None:
        super().__init__(config)
        images = create_source(config)
        if not isinstance(images, LabelledSource):
            raise UsageError(f"features cannot stand in place of the images of {config.dataset}")
        self._images, self._features = images, features

    def training_images(self) -> tuple[ImageSet, int]:
        """Return the features of all training images, and the number of classes."""
        return self._part("train"), len(self._classes)

    def test_set(self) -> ImageSet | None:
        """Return the features of the test images, or None if the data set has none."""
        return None if self._images.test_set() is None else self._part("test")

    def _part(self, part: Part) -> ImageSet:
        """Return the images of the chosen classes, which are counted from 0 among themselves."""
        images = self._images.training_images()[0] if part == "train" else self._images.test_set()
        assert images is not None
        number = torch.full((self._known_classes,), -1)
        number[self._classes] = torch.arange(len(self._classes))
        labels = number[images.labels.cpu()]
        kept = (labels >= 0).nonzero().squeeze(1)
        values, logits = (self._tensors.get(f"{kind}_{part}") for kind in ("features", "logits"))
        assert values is not None
        return FeatureImages(
            values[kept].view(len(kept), 1, 1, -1),
            labels[kept],
            noise=self._features.noise,
            teacher_logits=None if logits is None else logits[kept][:, self._classes],
        )

    @cached_property
    def _known_classes(self) -> int:
        return self._images.training_images()[1]

    @cached_property
    def _classes(self) -> Tensor:
        """The chosen classes ``(C,)`` in ascending order."""
        known, chosen = self._known_classes, self._features.num_classes
        if chosen is None:
            return torch.arange(known)
        if not 2 <= chosen <= known:
            raise UsageError(
                f"{self.config.dataset} has {known} classes, of which 2 or more can be drawn, not {chosen}"
            )
        order = np.random.default_rng(self._features.class_seed).permutation(known)
        return torch.from_numpy(np.sort(order[:chosen]))

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        """Features ``(n, d)`` and logits ``(n, C)`` of the training and test images, by ``KIND_PART``."""
        parts = {"train": self._images.training_images()[0], "test": self._images.test_set()}
        images = {name: part for name, part in parts.items() if part is not None}
        network = self._network(images["train"])
        config = self._features
        content = hashlib.sha256(f"{config.stage} {config.components}".encode())
        for part in images.values():
            content.update(part.fingerprint().encode())
        if network is not None:
            content.update(tensors_hash(network.state_dict()).encode())
        path = cache_folder() / f"features-{self.config.dataset}-{content.hexdigest()[:12]}.safetensors"

        def make(path: Path) -> dict[str, Tensor]:
            tensors = extract_features(images, network, config.stage, config.components)
            write_tensors(path, tensors)
            return tensors

        return cached(path, "features", lambda path: read_tensors(path)[0], make)

    def _network(self, images: ImageSet) -> nn.Module | None:
        config = self._features
        if config.network is None:
            return None
        root = self.config.root
        path = (root if root.is_dir() else root.parent) / expanded(config.network)
        return load_network(path, self._known_classes, images.image_shape, config.model)


@torch.no_grad()
def extract_features(
    images: dict[str, ImageSet], network: nn.Module | None, stage: int, components: int
) -> dict[str, Tensor]:
    """Return whitened principal components ``features_NAME`` ``(n, d)`` of each set, and ``logits_NAME`` ``(n, C)``.

    The components are those of the set ``"train"``. Without a network there are no logits.

    Raises:
        UsageError: if the network has no such stage, or there are fewer features than components.
    """
    found: dict[str, Tensor] = {}
    for name, part in images.items():
        chunks = [_forward(chunk, network, stage) for chunk in part.chunks(_CHUNK)]
        found[f"features_{name}"] = torch.cat([values for values, _ in chunks])
        logits = [logits for _, logits in chunks if logits is not None]
        if logits:
            found[f"logits_{name}"] = torch.cat(logits)
    train = found["features_train"].double()
    if not components <= train.shape[1]:
        raise UsageError(f"{components} components are more than the {train.shape[1]} features of stage {stage}")
    mean = train.mean(dim=0)
    _, vectors = torch.linalg.eigh(torch.cov(train.T))
    basis = vectors.flip(1)[:, :components]
    basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()  # a vector's sign is arbitrary
    basis = basis / ((train - mean) @ basis).std(dim=0).clamp_min(_LEAST_DEVIATION)
    for name in images:
        found[f"features_{name}"] = ((found[f"features_{name}"].double() - mean) @ basis).float()
    return found


def _forward(images: Tensor, network: nn.Module | None, stage: int) -> tuple[Tensor, Tensor | None]:
    """Return the features ``(N, D)`` of images before the projection, and the network's logits ``(N, C)``."""
    if network is None:
        return images.flatten(1), None
    logits, features = forward_with_features(network, images)
    if stage == 0:
        return images.flatten(1), logits
    if stage > len(features.stages):
        raise UsageError(f"the network has {len(features.stages)} stages, not {stage}")
    return F.adaptive_avg_pool2d(features.stages[stage - 1], _SIDE).flatten(1), logits
