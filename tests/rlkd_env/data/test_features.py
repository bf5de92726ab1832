"""Vectors with noise in place of images with random views."""

from __future__ import annotations

import pytest
import torch

from rlkd_env.data import BatchStream, FeatureImages


def make(count: int = 1000, size: int = 6, noise: float = 0.5, logits: bool = True) -> FeatureImages:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 1, 1, size, generator=generator)
    teacher = torch.randn(count, 3, generator=generator) if logits else None
    return FeatureImages(values, torch.arange(count) % 3, noise=noise, teacher_logits=teacher)


def test_views_are_the_images_plus_noise_of_the_given_deviation() -> None:
    images, everything = make(), torch.arange(1000)
    plain, first = images.take(everything), images.take(everything, view=1)
    assert torch.equal(plain, images.pixels)
    noise = first - plain
    assert noise.std() == pytest.approx(0.5, abs=0.02)
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert torch.equal(first, images.take(everything, view=1))
    assert not torch.equal(first, images.take(everything, view=2))
    assert torch.equal(images.take(torch.tensor([7, 3]), view=1), first[[7, 3]])


def test_without_noise_nothing_is_random() -> None:
    images = make(noise=0.0)
    assert not images.is_random
    assert torch.equal(images.take(torch.tensor([5]), view=1), images.take(torch.tensor([5])))


def test_logits_go_along_with_their_images() -> None:
    images, chosen = make(), torch.tensor([9, 2, 4])
    part = images.subset(chosen).to(torch.device("cpu"))
    assert torch.equal(part.teacher_logits, images.teacher_logits[chosen])
    both = part.joined(images.subset(torch.tensor([1])))
    assert torch.equal(both.teacher_logits, images.teacher_logits[[9, 2, 4, 1]])
    assert torch.equal(both.labels, images.labels[[9, 2, 4, 1]])
    assert part.joined(make(logits=False)).teacher_logits is None


def test_the_fingerprint_tells_features_and_noise() -> None:
    found = {images.fingerprint() for images in (make(), make(noise=0.4), make(size=5))}
    assert len(found) == 3
    assert make().fingerprint() in found


def test_batches_of_an_epoch_show_its_view() -> None:
    images = make()
    stream = BatchStream(images, 10, seed=3)
    batch, later = stream.batch(0), stream.batch(stream.batches_per_epoch)
    assert torch.equal(batch.images, images.take(batch.indices, stream.view_seed(0)))
    assert torch.equal(later.images, images.take(later.indices, stream.view_seed(1)))
