"""Files fitted into squares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlkd_env.data import (
    DataConfig,
    DataSource,
    MemoryDetectionSet,
    create_source,
)
from rlkd_env.data.detection import files as detection_files_module
from rlkd_env.data.detection.image_sets import StreamedDetectionSet
from rlkd_env.tasks.detection.average_precision import Detections, average_precision

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


@pytest.mark.parametrize("streams", [False, True])
def test_images_are_fitted_and_padded_and_boxes_with_them(
    streams: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if streams:
        monkeypatch.setattr(detection_files_module, "MEMORY_LIMIT", 0)
    images = training_set(write_parts(tmp_path, train=20))
    assert isinstance(images, StreamedDetectionSet if streams else MemoryDetectionSet)
    assert images.image_shape == (3, 20, 20)
    pixels = images.take(torch.arange(3))
    # Half the size: the object is in columns 5 to 7 and rows 2 to 5, and the padding close to 0 from row 10 on.
    assert images.boxes.corners[0].tolist() == [[5.0, 2.0, 8.0, 6.0]]
    assert (pixels[:, :, 3:5, 6:7] > 2.0).all()
    assert (pixels[:, :, 7:10] < -1.5).all()
    assert pixels[:, :, 10:].abs().max() < 0.01
    assert images.in_files(0, images.boxes.corners[0]).tolist() == [[10.0, 4.0, 16.0, 12.0]]
    truth = images.ground_truth()
    assert truth["annotations"][1] == {
        "id": 2,
        "image_id": 2,
        "category_id": 1,
        "bbox": [10.0, 4.0, 6.0, 8.0],
        "area": 40.5,
        "iscrowd": 0,
    }
    assert truth["images"][0] == {"id": 1, "width": WIDTH, "height": HEIGHT}


def edited(tmp_path: Path, *boxes: list[float], **changes: object) -> Path:
    """Write twenty images, the first of which has these boxes in place of its own, with changes to all of them."""
    content = coco(20)
    rows = [{"id": 100 + n, "image_id": 1, "category_id": 3, "bbox": box, **changes} for n, box in enumerate(boxes)]
    content["annotations"] = content["annotations"][1:] + rows
    write(content, tmp_path / "train.json", tmp_path / "images")
    return tmp_path


def test_boxes_of_the_fitted_images_are_perfect_detections_in_the_files(tmp_path: Path) -> None:
    root = edited(tmp_path, BOX, [20, 3, 17, 15], [1, 1, 3, 3], [30, 16, 50, 50])
    images = training_set(root, image_size=33)
    detections = [
        Detections(images.in_files(position, corners), torch.ones(len(classes)), classes)
        for position, (corners, classes) in enumerate(images.boxes.trainable())
    ]
    assert average_precision(images.ground_truth(), detections)["AP"] == pytest.approx(1.0)
    moved = [replace(found, corners=found.corners + 2.0) for found in detections]
    assert average_precision(images.ground_truth(), moved)["AP"] < 0.5
