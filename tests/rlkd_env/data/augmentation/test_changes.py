"""Changes of single images are torchvision's, follow from view and position, and are left out of plain images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import arrays_source, folder_source, pixels, write_folder, write_npz
from torchvision.transforms import v2

from rlkd_env.data import DataConfig, create_source
from rlkd_env.data.augmentation import ImageChanges, Preprocessing
from rlkd_env.data.images import MemoryImages
from rlkd_env.errors import UsageError
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.seeds import mixed_seed

CHANGES = {
    "randaugment": (ImageChanges("randaugment", magnitude=12), lambda: v2.RandAugment(magnitude=12)),
    "trivialaugment": (ImageChanges("trivialaugment"), v2.TrivialAugmentWide),
    "erase": (ImageChanges(random_erase=0.7), lambda: v2.RandomErasing(0.7, value=[51.0, 102.0, 128.0])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_image_is_changed_as_torchvision_does_by_its_own_draw(name: str) -> None:
    changes, theirs = CHANGES[name]
    images = torch.from_numpy(pixels(6, size=16).transpose(0, 3, 1, 2).copy())
    preprocessing = Preprocessing((0.2, 0.4, 0.5), (0.3, 0.3, 0.3), changes=changes)
    data = MemoryImages(images, torch.zeros(6, dtype=torch.int64), preprocessing)
    positions = torch.tensor([4, 0, 5])
    before = torch.get_rng_state()
    found = data.take(positions, view=9)
    assert torch.equal(torch.get_rng_state(), before)
    expected = []
    for position in positions.tolist():
        torch.manual_seed(mixed_seed(9, position))
        expected.append(theirs()(images[position]))
    assert torch.equal(found, preprocessing.normalize(torch.stack(expected)))
    assert not torch.equal(found, data.take(positions, view=8))
    assert torch.equal(data.take(positions), preprocessing.normalize(images[positions]))


def test_an_erased_rectangle_is_zero_after_normalisation() -> None:
    images = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    preprocessing = Preprocessing((0.2, 0.4, 0.6), (0.5, 0.5, 0.5), changes=ImageChanges(random_erase=1.0))
    (erased,) = MemoryImages(images, torch.zeros(1), preprocessing).take(torch.tensor([0]), view=0).unbind()
    values = erased.flatten(1).unique(dim=1)
    assert values.shape == (3, 2)
    assert values.abs().amin(dim=1).max() < 1e-6


def test_streamed_images_are_changed_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 12, "dog": 12}, size=24)
    usual = {"augmentation": "resized_crop", "image_size": 16}
    plain, erased = (folder_source(tmp_path, **usual, random_erase=p).splits().train for p in (0.0, 1.0))
    at = torch.arange(4)
    assert torch.equal(plain.take(at), erased.take(at))
    differs = (plain.take(at, view=1) != erased.take(at, view=1)).any(dim=1).flatten(1).float().mean(dim=1)
    assert ((differs > 0.01) & (differs < 0.4)).all(), "a rectangle of 2 to 33 % of the area"
    assert torch.equal(erased.take(at, view=1), erased.take(at, view=1))


def test_changes_of_pixels_that_are_normalised_already_are_refused() -> None:
    config = DataConfig(dataset="normalised_images:make", auto_augment="randaugment", workers=0)
    with pytest.raises(UsageError, match="normalised already: leave --auto-augment out"):
        create_source(config).splits()
    erased = create_source(DataConfig(dataset="normalised_images:make", random_erase=0.5, workers=0)).splits()
    assert erased.train.is_random
    with pytest.raises(UsageError, match="two views of every image, and here there is one, as pixels are normalised"):
        erased.train.in_stronger_views()


def test_what_a_data_set_does_not_do_is_told(tmp_path: Path) -> None:
    source = arrays_source(write_npz(tmp_path / "a.npz"))  # made without the option
    config = RunConfig.from_keywords(auto_augment="trivialaugment", device="cpu", batch_size=8)
    with pytest.raises(UsageError, match="--auto-augment and --random-erase are not for digits"):
        build_run(config, dataset=source)
