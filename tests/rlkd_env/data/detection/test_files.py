"""What sources of annotated files have in common: images in memory or streamed, damaged ones, options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from coco_files import source_of, training_set, write_image, write_parts

from rlkd_env.data import (
    BatchStream,
)
from rlkd_env.data.detection import files as detection_files_module
from rlkd_env.data.detection.image_sets import MemoryDetectionSet, StreamedDetectionSet
from rlkd_env.errors import UsageError


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_in_memory(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(tmp_path, train=30)
    memory = source_of(tmp_path, workers=workers).splits()
    monkeypatch.setattr(detection_files_module, "MEMORY_LIMIT", 0)
    streamed = source_of(tmp_path, workers=workers).splits()
    assert isinstance(streamed.train, StreamedDetectionSet)
    first, second = (BatchStream(splits.train, 8, seed=5) for splits in (memory, streamed))
    mirrored = 0
    for step in range(7):  # over the end of two epochs, with other views
        one, other = first.batch(step), second.batch(step)
        torch.testing.assert_close(one.images, other.images)
        assert torch.equal(one.boxes.corners, other.boxes.corners)
        mirrored += int((one.boxes.corners[:, 0, 0] == 20.0 - 8.0).sum())
        taken = second.take(one.indices, step)
        torch.testing.assert_close(taken.images, one.images)
    assert 10 < mirrored < 46  # of 56
    assert torch.equal(torch.cat(list(streamed.probe.chunks(3))), memory.probe.images)


def test_a_streamed_set_in_memory_has_the_same_images_boxes_and_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(tmp_path, train=30)
    monkeypatch.setattr(detection_files_module, "MEMORY_LIMIT", 0)
    streamed = source_of(tmp_path, workers=0).splits().probe
    memory = streamed.in_memory()
    assert isinstance(memory, MemoryDetectionSet)
    assert torch.equal(memory.images, streamed.images)
    assert torch.equal(memory.boxes.corners, streamed.boxes.corners)
    assert memory.ground_truth() == streamed.ground_truth()


def damage(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "images" / "004.png"
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    else:
        write_image(path, size=(20, 40))


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"images/004\.png"),
        ("truncated", r"images/004\.png cannot be read"),
        ("turned", r"images/004\.png is 20 by 40, but its annotations are for 40 by 20"),
    ],
)
def test_images_that_are_missing_damaged_or_of_another_size_are_refused_or_skipped(
    kind: str,
    message: str,
    streams: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if streams:
        monkeypatch.setattr(detection_files_module, "MEMORY_LIMIT", 0)
    damage(write_parts(tmp_path, train=20), kind)
    with pytest.raises(UsageError, match=message) as error:
        list(training_set(tmp_path).chunks(8))
    assert "\n" not in str(error.value)
    images = training_set(tmp_path, damaged_images="skip")
    assert "004.png" in capsys.readouterr().err
    assert len(torch.cat(list(images.chunks(8)))) == len(images) == 19
    assert images.labels.tolist() == ([2, 1] * 10)[:3] + ([2, 1] * 10)[4:]
    assert images.fingerprint() != training_set(tmp_path, damaged_images="skip").subset(torch.arange(18)).fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": "crop_flip"}, "crop_flip is not for detection"),
        ({"augmentation": "resized_crop"}, "resized_crop is not for detection"),
        ({"image_size": 0}, "image size must be at least 1 and at most 4096, not 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        source_of(write_parts(tmp_path, train=20), **options).splits()


def test_augmentation_none_mirrors_nothing(tmp_path: Path) -> None:
    write_parts(tmp_path, train=20)
    assert training_set(tmp_path).is_random  # auto mirrors
    assert not training_set(tmp_path, augmentation="none").is_random
