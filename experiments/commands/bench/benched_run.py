"""The run that is benched: that of the options, or one on made-up images."""

from __future__ import annotations

from typing import Any

import torch

from experiments.config import BenchConfig
from rlkd_env.data import DataConfig, DataSource, ImageSet, MemoryImages, Preprocessing, Splits
from rlkd_env.models import create_model
from rlkd_env.runs.build import build_run
from rlkd_env.runs.run import DistillationRun

_EPOCHS = 100_000  # so many that no run of a benchmark ends
_CLASSES, _SHAPE, _IMAGES = 100, (3, 32, 32), 4096
_LOGIT_STD = 4.0


class RandomImages(DataSource):
    """Noise with CIFAR-100's image size and classes, cropped and flipped like real images."""

    default_teacher = "resnet56"
    default_student = "resnet20"

    def __init__(self, config: DataConfig | None = None) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (_IMAGES, *_SHAPE), generator=generator, dtype=torch.uint8)
        labels = torch.randint(_CLASSES, (_IMAGES,), generator=generator)
        self._images = MemoryImages(pixels, labels, Preprocessing((0.5,) * 3, (0.25,) * 3, crop_padding=4, flip=True))

    def splits(self) -> Splits:
        """Return the same images for all parts."""
        few = self._images.subset(torch.arange(512))
        return Splits(self._images, few, few, self._images, _CLASSES)

    def test_set(self) -> ImageSet | None:
        """Return None, as there is no test set."""
        return None


def build_bench_run(config: BenchConfig, **changes: Any) -> DistillationRun:
    """Build the run that the config describes, but one that does not end."""
    settings = config.run.replaced(changes, epochs=_EPOCHS, schedule="constant")
    if not config.bench.random_images:
        return build_run(settings)
    name = settings.networks.teacher_models[0] or RandomImages.default_teacher
    source = RandomImages(settings.data)
    return build_run(settings, dataset=source, teacher=_untrained_teacher(name, source))


def _untrained_teacher(name: str, source: RandomImages) -> torch.nn.Module:
    """Create a teacher whose logits are as large as those of a trained one, so that students do not diverge."""
    torch.manual_seed(0)
    teacher = create_model(name, _CLASSES, _SHAPE).eval()
    with torch.no_grad():
        std = teacher(source.splits().probe.take(torch.arange(64))).std(dim=-1).mean()
        classifier = [module for module in teacher.modules() if isinstance(module, torch.nn.Linear)][-1]
        for parameter in classifier.parameters():
            parameter.mul_(_LOGIT_STD / std)
    return teacher
