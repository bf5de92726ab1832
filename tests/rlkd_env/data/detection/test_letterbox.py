"""Files fitted into squares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coco_files import (
    BOX,
    HEIGHT,
    WIDTH,
    edited,
    training_set,
    write_parts,
)
from PIL import Image

from rlkd_env.data import (
    MemoryDetectionSet,
)
from rlkd_env.data.detection import files as detection_files_module
from rlkd_env.data.detection.image_sets import StreamedDetectionSet
from rlkd_env.errors import UsageError
from rlkd_env.tasks.detection.average_precision import Detections, average_precision


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


def turn(root: Path) -> None:
    """Store the first picture turned to the left, with a note to turn it back, as cameras do."""
    path, orientation = root / "images" / "001.png", Image.Exif()
    orientation[0x0112] = 6
    with Image.open(path) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(path, exif=orientation)


def test_boxes_are_those_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    root = write_parts(tmp_path, train=20)
    plain = training_set(root).images
    turn(root)
    assert torch.equal(training_set(root).images, plain)


def test_annotations_of_the_stored_picture_are_refused_and_the_orientation_is_named(tmp_path: Path) -> None:
    root = write_parts(tmp_path, train=20)
    turn(root)
    content = json.loads((root / "train.json").read_text())
    content["images"][0] |= {"width": HEIGHT, "height": WIDTH}
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"is 40 by 20, but its annotations are for 20 by 40: its EXIF orientation"):
        training_set(root)
