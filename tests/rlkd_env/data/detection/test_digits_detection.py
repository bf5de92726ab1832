"""The parts of the data set of scenes of digits."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from scenes import digits_source

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    MemoryDetectionSet,
    count_duplicates,
    create_source,
)
from rlkd_env.data.sources.digits import Digits
from rlkd_env.errors import UsageError


@pytest.mark.slow
def test_the_parts_have_the_documented_sizes() -> None:
    source = create_source(DataConfig(dataset="digits_detection"))
    splits, test = source.splits(), source.test_set()
    parts = (splits.teacher_train, splits.train, splits.reserve, splits.probe, splits.validation, test)
    assert [len(part) for part in parts] == [800, 300, 500, 80, 100, 300]
    assert (source.task, splits.num_classes, len(source.class_names)) == ("detection", 10, 10)
    assert splits.image_shape == (1, 64, 64)
    for part in parts:
        assert isinstance(part, MemoryDetectionSet)
        assert part.pixels.dtype == torch.uint8
        assert abs(float(part.images.mean())) < 0.1
        assert abs(float(part.images.std()) - 1.0) < 0.1
        # Every class is in every part, and so are scenes without a digit.
        assert set(part.boxes.classes.unique().tolist()) == set(range(11))
        assert (part.labels == 0).any()


def test_no_handwritten_digit_is_in_scenes_of_two_parts() -> None:
    for seed in (0, 4):
        parts = Digits(DataConfig(split_seed=seed)).parts()
        used = np.concatenate([parts[name] for name in ("teacher", "probe", "validation", "test")])
        assert len(used) == len(np.unique(used)) == 1797
    source = digits_source()
    assert count_duplicates(source.splits().teacher_train, source.test_set()) == 0


@pytest.mark.slow
def test_scenes_follow_from_the_seed_and_test_scenes_do_not() -> None:
    first, again, other = digits_source(), digits_source(), digits_source(split_seed=1)
    assert first.splits().train.fingerprint() == again.splits().train.fingerprint()
    assert first.splits().train.fingerprint() != other.splits().train.fingerprint()
    assert first.test_set().fingerprint() == other.test_set().fingerprint()
    more = digits_source(teacher_images=60, train_images=20).splits()
    assert torch.equal(more.teacher_train.images[:40], first.splits().teacher_train.images)
    assert torch.equal(more.train.images[:15], first.splits().train.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 31}, "image_size of at least 32, not 31"),
        ({"augmentation": "crop_flip"}, "crop_flip is not for detection; it can be none or flip"),
        ({"augmentation": "resized_crop"}, "resized_crop is not for detection"),
        ({"train_images": 41}, "training part cannot have 41 images: 40 are there"),
        ({"train_images": 0}, "train images must be at least 1 image, not 0"),
        ({"validation_images": 0}, "validation images must be at least 1 image, not 0"),
        ({"probe_size": 0}, "probe size must be at least 1 image, not 0"),
    ],
)
def test_impossible_scenes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        digits_source(**options).splits()


def test_scenes_are_as_large_as_asked_for() -> None:
    splits = digits_source(image_size=96).splits()
    assert splits.image_shape == (1, 96, 96)
    sides = splits.teacher_train.boxes.corners[..., 2:] - splits.teacher_train.boxes.corners[..., :2]
    assert 29 < sides.max() <= 0.45 * 96 + 1  # larger than in scenes of 64


@pytest.mark.parametrize(
    ("name", "dataset"), [("DigitsDetection", "digits_detection"), ("COCO", "coco"), ("VOC", "voc")]
)
def test_detection_data_have_environments(name: str, dataset: str) -> None:
    assert gym.spec(f"rlkd/{name}-v0").kwargs["dataset"] == dataset
