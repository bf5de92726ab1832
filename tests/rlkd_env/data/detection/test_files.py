"""What sources of annotated files have in common: images in memory or streamed, damaged ones, options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlkd_env.data import (
    BatchStream,
    DataConfig,
    DataSource,
    create_source,
)
from rlkd_env.data.detection import files as detection_files_module
from rlkd_env.data.detection.image_sets import StreamedDetectionSet
from rlkd_env.errors import UsageError

WIDTH, HEIGHT = 40, 20

BOX = [10, 4, 6, 8]
"""Left, top, width and height of the white object in every image."""

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top, width, height = BOX
    pixels[top : top + height, left : left + width] = 255
    Image.fromarray(pixels).save(path)


def coco(count: int, first: int = 1) -> dict[str, Any]:
    """As many images with one object each, dogs and cats in turn."""
    numbers = range(first, first + count)
    return {
        "images": [{"id": n, "file_name": f"{n:03d}.png", "width": WIDTH, "height": HEIGHT} for n in numbers],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 7 if n % 2 else 3, "bbox": list(BOX), "area": 40.5, "iscrowd": 0}
            for n in numbers
        ],
        "categories": CATEGORIES,
    }


def write(content: dict[str, Any], annotations: Path, folder: Path) -> None:
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(content))
    for row in content["images"]:
        write_image(folder / row["file_name"])


def write_parts(root: Path, **counts: int) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        write(coco(count, 1 + 100 * number), root / f"{name}.json", root / "images")
    return root


def source_of(root: Path, **options: object) -> DataSource:
    settings = {"dataset": "coco", "data_path": str(root), "image_size": 20, "workers": 0, "probe_size": 2, **options}
    return create_source(DataConfig(**settings))


def training_set(root: Path, **options: object) -> Any:
    return source_of(root, **options).training_images()[0]


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
        ({"image_size": 0}, "image size must be at least 1, not 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        source_of(write_parts(tmp_path, train=20), **options).splits()


def test_augmentation_none_mirrors_nothing(tmp_path: Path) -> None:
    write_parts(tmp_path, train=20)
    assert training_set(tmp_path).is_random  # auto mirrors
    assert not training_set(tmp_path, augmentation="none").is_random
