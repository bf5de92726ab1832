"""Scenes of digits, and what every set of images with boxes does."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    BatchStream,
    Boxes,
    DataConfig,
    DataSource,
    DetectionSet,
    MemoryDetectionSet,
    Share,
    count_duplicates,
    create_source,
)
from rlkd_env.data.detection import scenes as scenes_module
from rlkd_env.data.detection.annotations import Annotations, Objects
from rlkd_env.data.images import Preprocessing
from rlkd_env.data.sources.digits import Digits, load_digit_images
from rlkd_env.data.splits import stratified
from rlkd_env.errors import UsageError

SMALL = {"teacher_images": 40, "train_images": 15, "validation_images": 12}


def digits_source(**options: object) -> DataSource:
    return create_source(DataConfig(**{"dataset": "digits_detection", **SMALL, **options}))


class Quiet(np.random.Generator):
    """Draws no noise."""

    def normal(self, scale: float, size: tuple[int, ...]) -> np.ndarray:
        return np.zeros(size)


def bare_scenes(count: int, monkeypatch: pytest.MonkeyPatch) -> list[scenes_module.Scene]:
    """Scenes of digits alone, on black."""
    monkeypatch.setattr(scenes_module, "_MOST_CLUTTER", 0)
    monkeypatch.setattr(scenes_module, "_background", lambda size, generator: np.zeros((size, size)))
    images, digits = load_digit_images()
    return [
        scenes_module.compose(images[:, 0], digits, 64, Quiet(np.random.PCG64([7, number]))) for number in range(count)
    ]


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


def test_scenes_follow_from_the_seed_and_test_scenes_do_not() -> None:
    first, again, other = digits_source(), digits_source(), digits_source(split_seed=1)
    assert first.splits().train.fingerprint() == again.splits().train.fingerprint()
    assert first.splits().train.fingerprint() != other.splits().train.fingerprint()
    assert first.test_set().fingerprint() == other.test_set().fingerprint()
    more = digits_source(teacher_images=60, train_images=20).splits()
    assert torch.equal(more.teacher_train.images[:40], first.splits().teacher_train.images)
    assert torch.equal(more.train.images[:15], first.splits().train.images)


def test_boxes_are_tight_around_the_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = 0
    for scene in bare_scenes(60, monkeypatch):
        covered = np.zeros((64, 64), dtype=bool)
        for left, top, right, bottom in scene.corners.astype(int):
            part = scene.pixels[top:bottom, left:right] > 0
            assert all(border.any() for border in (part[0], part[-1], part[:, 0], part[:, -1]))
            covered[top:bottom, left:right] = True
        assert not scene.pixels[~covered].any()
        if len(scene.digits) == 1:
            alone += 1
            rows, columns = scene.pixels.nonzero()
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert scene.corners[0].tolist() == expected
    assert alone >= 3


def test_digits_overlap_by_a_quarter_of_the_smaller_box_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0.0
    for scene in bare_scenes(60, monkeypatch):
        for number, (left, top, right, bottom) in enumerate(scene.corners):
            for other_left, other_top, other_right, other_bottom in scene.corners[:number]:
                width = max(min(right, other_right) - max(left, other_left), 0.0)
                height = max(min(bottom, other_bottom) - max(top, other_top), 0.0)
                areas = (right - left) * (bottom - top), (other_right - other_left) * (other_bottom - other_top)
                largest = max(largest, width * height / min(areas))
    assert 0.1 < largest <= 0.25


def test_every_digit_can_be_drawn_in_the_smallest_size() -> None:
    for image in load_digit_images()[0][:, 0]:
        assert min(scenes_module._drawn(image, (6, 6)).shape) >= 1


def test_clutter_changes_pixels_and_no_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    images, digits = load_digit_images()

    def scenes() -> list[scenes_module.Scene]:
        return [
            scenes_module.compose(images[:, 0], digits, 64, Quiet(np.random.PCG64([1, number]))) for number in range(8)
        ]

    cluttered = scenes()
    monkeypatch.setattr(scenes_module, "_lay_fragment", lambda *arguments: None)
    monkeypatch.setattr(scenes_module, "_stroke", lambda size, generator: np.zeros((size, size)))
    plain = scenes()
    assert all(np.array_equal(one.corners, other.corners) for one, other in zip(cluttered, plain, strict=True))
    assert sum(np.array_equal(one.pixels, other.pixels) for one, other in zip(cluttered, plain, strict=True)) < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 31}, "image_size of at least 32, not 31"),
        ({"augmentation": "crop_flip"}, "crop_flip is not for detection; it can be none or flip"),
        ({"augmentation": "resized_crop"}, "resized_crop is not for detection"),
        ({"train_images": 41}, "training part cannot have 41 images: 40 are there"),
        ({"train_images": 0}, "training part cannot have 0 images"),
        ({"validation_images": 0}, "validation part cannot have 0 images"),
        ({"probe_size": 0}, "probe part cannot have 0 images"),
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


# Of any set of images with boxes


def flipped_set() -> MemoryDetectionSet:
    return digits_source(augmentation="flip").splits().teacher_train


def mirror(boxes: Boxes, position: int, width: int) -> list[list[float]]:
    corners = boxes.corners[position][boxes.classes[position] > 0].tolist()
    return [[width - right, top, width - left, bottom] for left, top, right, bottom in corners]


def test_boxes_are_mirrored_with_their_images() -> None:
    images = flipped_set()
    positions = torch.tensor([3, 0, 11, 5, 39, 20, 8, 9])
    plain, plain_boxes = images.take(positions), images.take_boxes(positions)
    seen, boxes = images.take(positions, view=2), images.take_boxes(positions, view=2)
    mirrored = [bool(torch.equal(view, image.flip(-1))) for view, image in zip(seen, plain, strict=True)]
    assert set(mirrored) == {True, False}
    for position, is_mirrored in enumerate(mirrored):
        is_there = boxes.classes[position] > 0
        if is_mirrored:
            assert boxes.corners[position][is_there].tolist() == mirror(plain_boxes, position, 64)
        else:
            assert torch.equal(seen[position], plain[position])
            assert torch.equal(boxes.corners[position], plain_boxes.corners[position])
    assert torch.equal(boxes.classes, plain_boxes.classes)


def test_only_training_images_are_mirrored_and_digits_only_when_asked() -> None:
    assert not digits_source().splits().train.is_random
    splits = digits_source(augmentation="flip").splits()
    assert splits.train.is_random
    assert not any(part.is_random for part in (splits.probe, splits.validation))


def test_batches_come_with_the_boxes_of_their_images() -> None:
    images = flipped_set()
    stream = BatchStream(images, 12, seed=1)
    for step in (0, 1, 4):
        batch = stream.batch(step)
        again = images.take_boxes(batch.indices, stream.view_seed(batch.view))
        assert torch.equal(batch.boxes.corners, again.corners)
        assert torch.equal(batch.boxes.classes, images.boxes.classes[batch.indices])
        pieces = [BatchStream(images, 12, 1, share=Share(index, 3)).batch(step) for index in range(3)]
        assert torch.equal(torch.cat([piece.boxes.corners for piece in pieces]), batch.boxes.corners)


def test_parts_of_a_set_keep_their_boxes() -> None:
    images = digits_source().splits().teacher_train
    positions = torch.tensor([7, 2, 30])
    part = images.subset(positions).to(torch.device("cpu"))
    assert isinstance(part, DetectionSet)
    assert torch.equal(part.boxes.corners, images.boxes.corners[positions])
    assert torch.equal(part.labels, images.labels[positions])
    found = part.ground_truth()
    assert [image["id"] for image in found["images"]] == [1, 2, 3]
    for number, position in enumerate(positions.tolist()):
        expected = images.boxes.classes[position]
        own = [row for row in found["annotations"] if row["image_id"] == number + 1]
        assert [row["category_id"] for row in own] == expected[expected > 0].tolist()
    assert found["categories"][3] == {"id": 4, "name": "3"}


def test_other_boxes_make_another_fingerprint() -> None:
    images = digits_source().splits().train
    moved = replace(images.boxes, corners=images.boxes.corners + 1.0)
    assert replace(images, boxes=moved).fingerprint() != images.fingerprint()
    assert replace(images).fingerprint() == images.fingerprint()


def three_images() -> MemoryDetectionSet:
    """Of files of 20 by 10, 10 by 40 and 5 by 5 pixels, shown in 20 by 20."""
    sizes = torch.tensor([[20, 10], [10, 40], [5, 5]])
    rows = [
        (1, (0.0, 0.0, 8.0, 4.0), 2, False, 32.0),
        (0, (2.0, 1.0, 4.0, 3.0), 1, False, 3.5),
        (1, (1.0, 4.0, 2.0, 8.0), 1, False, 4.0),
        (1, (0.0, 0.0, 10.0, 40.0), 1, True, 400.0),
    ]
    annotations = Annotations.of_objects(sizes, Objects.of_rows(rows), ("cat", "dog"))
    return MemoryDetectionSet.of(torch.zeros(3, 3, 20, 20, dtype=torch.uint8), annotations, Preprocessing())


def test_boxes_are_scaled_as_their_images_are() -> None:
    images = three_images()
    assert images.boxes.corners.shape == (3, 3, 4)
    assert images.boxes.corners[0, 0].tolist() == [2, 1, 4, 3]
    assert images.boxes.corners[1, :2].tolist() == [[0, 0, 4, 2], [0.5, 2, 1, 4]]
    assert images.boxes.classes.tolist() == [[1, 0, 0], [2, 1, 1], [0, 0, 0]]
    for position in range(2):
        there = images.boxes.classes[position] > 0
        found = images.in_files(position, images.boxes.corners[position][there])
        torch.testing.assert_close(found, images.annotations.boxes.corners[position][there])
    # What a network sees in the padding is at the border of the file.
    assert images.in_files(0, torch.tensor([[-1.0, 2.0, 30.0, 19.0]])).tolist() == [[0.0, 2.0, 20.0, 10.0]]
    assert images.in_files(2, torch.tensor([[4.0, 8.0, 16.0, 20.0]])).tolist() == [[1.0, 2.0, 4.0, 5.0]]


def test_an_image_is_of_the_class_of_its_largest_object_without_crowds() -> None:
    images = three_images()
    assert images.labels.tolist() == [1, 2, 0]
    part, rest = stratified(np.arange(3), images.labels.numpy(), 2, 0, "test")
    assert sorted([*part, *rest]) == [0, 1, 2]
    assert [len(classes) for _, classes in images.boxes.trainable()] == [1, 2, 0]


def test_the_ground_truth_is_in_pixels_of_the_files() -> None:
    found = three_images().ground_truth()
    assert found["images"][1] == {"id": 2, "width": 10, "height": 40}
    first, second, *_, crowd = found["annotations"]
    expected = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2.0, 1.0, 2.0, 2.0], "area": 3.5, "iscrowd": 0}
    assert first == expected
    assert (second["image_id"], second["bbox"]) == (2, [0.0, 0.0, 8.0, 4.0])
    assert (crowd["iscrowd"], crowd["bbox"]) == (1, [0.0, 0.0, 10.0, 40.0])


def test_a_set_may_have_no_box_at_all() -> None:
    annotations = Annotations.of_objects(torch.full((2, 2), 20), Objects.of_rows([]), ("cat",))
    images = MemoryDetectionSet.of(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), annotations, Preprocessing(flip=True))
    assert images.labels.tolist() == [0, 0]
    assert images.take_boxes(torch.arange(2), view=0).corners.shape == (2, 0, 4)
    assert images.ground_truth()["annotations"] == []


@pytest.mark.parametrize(
    ("name", "dataset"), [("DigitsDetection", "digits_detection"), ("COCO", "coco"), ("VOC", "voc")]
)
def test_detection_data_have_environments(name: str, dataset: str) -> None:
    assert gym.spec(f"rlkd/{name}-v0").kwargs["dataset"] == dataset
