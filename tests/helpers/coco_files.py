"""Small annotated images on disk, in COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlkd_env.data import (
    DataConfig,
    DataSource,
    create_source,
)

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


def edited(tmp_path: Path, *boxes: list[float], **changes: object) -> Path:
    """Write twenty images, the first of which has these boxes in place of its own, with changes to all of them."""
    content = coco(20)
    rows = [{"id": 100 + n, "image_id": 1, "category_id": 3, "bbox": box, **changes} for n, box in enumerate(boxes)]
    content["annotations"] = content["annotations"][1:] + rows
    write(content, tmp_path / "train.json", tmp_path / "images")
    return tmp_path
