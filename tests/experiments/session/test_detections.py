"""What a finished run of a detector keeps of its images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_detections import REAL, write_example

from experiments.session.detections import LONGEST_SIDE, MOST_IMAGES, read_detections, write_detections
from experiments.session.folder import CONFIG_FILE, clear_folder
from rlkd_env.utils.files import write_json


def test_what_is_written_is_read_and_bounded(tmp_path: Path) -> None:
    write_example(tmp_path, num_images=MOST_IMAGES + 3)
    record = read_detections(tmp_path)
    assert record is not None
    assert len(record.images) == MOST_IMAGES
    image = record.images[-1]
    expected = 255.0 * torch.rand(MOST_IMAGES + 3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    assert (image.pixels.float() - expected[MOST_IMAGES - 1]).abs().max() <= 0.5 + 1e-3
    assert torch.equal(image.real.corners, REAL)
    assert image.real.classes.tolist() == [1, 2]
    assert torch.equal(image.student.corners, REAL + 2.0)
    assert image.student.scores.tolist() == pytest.approx([0.8, 0.3])
    assert image.proposals.temperatures.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert record.class_names == ("ring", "cross")
    write_json(tmp_path / CONFIG_FILE, {"student": "auto"})  # the folder is a run's
    clear_folder(tmp_path)
    assert read_detections(tmp_path) is None


def test_large_images_are_made_smaller_with_their_boxes(tmp_path: Path) -> None:
    write_example(tmp_path, num_images=1, height=LONGEST_SIDE, width=4 * LONGEST_SIDE)
    record = read_detections(tmp_path)
    assert record is not None
    (image,) = record.images
    assert tuple(image.pixels.shape) == (3, LONGEST_SIDE // 4, LONGEST_SIDE)
    assert torch.equal(image.real.corners, REAL / 4)
    assert torch.equal(image.proposals.corners[:2], REAL / 4)


def test_unequal_numbers_of_images_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image"):
        write_example(tmp_path, num_images=0)
    with pytest.raises(ValueError, match="of the same images"):
        write_detections(tmp_path, torch.rand(2, 1, 8, 8), ["a"], [], [], [], [])
