"""Images read ahead from disk are those in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import folder_source, write_folder
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from rlkd_env.data import MemoryImages, Preprocessing
from rlkd_env.data.sources import image_folder as image_folder_module
from rlkd_env.data.streamed import FileReader, StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.utils.seeds import mixed_seed


def test_streamed_images_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 20})
    memory = folder_source(tmp_path, augmentation="none").splits()
    monkeypatch.setattr(image_folder_module, "MEMORY_LIMIT", 0)
    streamed = folder_source(tmp_path, augmentation="none").splits()
    assert isinstance(streamed.train, StreamedImages)
    torch.testing.assert_close(streamed.train.images, memory.train.images)
    assert torch.equal(streamed.train.labels, memory.train.labels)
    assert folder_source(tmp_path).test_set() is None


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_streamed_images_goes_on_bit_for_bit(workers: int, tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 30, "dog": 30})
    config = RunConfig.from_keywords(
        dataset="image_folder",
        data_path=str(tmp_path),
        image_size=16,
        augmentation="resized_crop",
        workers=workers,
        batch_size=16,
        epochs=3,
        device="cpu",
        student="mlp6",
    )
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    run = build_run(config, teacher=teacher)
    run.reset(0)
    temperature = Temperature.shared(torch.full((16,), 4.0))
    run.step(temperature)
    fork = run.fork()
    for _ in range(5):
        one, other = run.step(temperature), fork.step(temperature)
        assert torch.equal(one.state, other.state)
        assert torch.equal(one.reward, other.reward)
    assert torch.equal(run.batch.images, fork.batch.images)
    plain = run.splits.train.take(run.batch.indices)
    assert not torch.equal(plain, run.batch.images)


def test_a_damaged_image_in_a_worker_ends_with_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 20})
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no image")
    images = folder_source(tmp_path, augmentation="resized_crop", workers=1).splits().train
    with pytest.raises(UsageError, match="cannot be read") as error:
        next(images.follow(iter([(torch.arange(4), 0)])))
    assert "\n" not in str(error.value)


def photograph(height: int = 60, width: int = 80) -> Image.Image:
    """A picture with the smooth parts that noise lacks, and JPEG is made for."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / scale + columns / (3 * scale)) for scale in (3, 7, 20)]
    return Image.fromarray((127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8))


def files_of_all_kinds(root: Path) -> list[Path]:
    picture = photograph()
    kinds = {
        "plain.jpg": (picture, {}),
        "progressive.jpg": (picture, {"progressive": True, "subsampling": 2, "quality": 60}),
        "grey.jpg": (picture.convert("L"), {}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "palette.png": (picture.quantize(16), {}),
        "alpha.png": (picture.convert("RGBA"), {}),
        "rgb.png": (picture, {}),
    }
    for name, (image, options) in kinds.items():
        image.save(root / name, **options)
    return [root / name for name in kinds]


@pytest.mark.filterwarnings("ignore:images that are not RGB")
def test_files_of_every_kind_look_as_pillow_converts_them(tmp_path: Path) -> None:
    paths = files_of_all_kinds(tmp_path)
    reader = FileReader(paths, 32, resized_crop=False, flip=False)
    for position, path in enumerate(paths):
        expected = Image.open(path).convert("RGB")
        assert np.array_equal(np.asarray(reader.open(position)), np.asarray(expected)), path.name


def test_random_views_follow_from_the_seed_of_the_view_and_the_image(tmp_path: Path) -> None:
    photograph().save(tmp_path / "picture.jpg")
    reader = FileReader([tmp_path / "picture.jpg"] * 4, 32, resized_crop=True, flip=True)
    images = StreamedImages(reader, torch.arange(4), torch.zeros(4), Preprocessing())
    crop, before = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()]), torch.get_rng_state()
    found = (255 * images.take(torch.arange(4), view=3)).round()
    assert torch.equal(torch.get_rng_state(), before)
    for position in range(4):
        torch.manual_seed(mixed_seed(3, position))
        assert torch.equal(found[position], transforms.pil_to_tensor(crop(photograph_of(reader, position))).float())


def photograph_of(reader: FileReader, position: int) -> Image.Image:
    return Image.open(reader.paths[position]).convert("RGB")


def test_rewards_do_not_read_the_probe_images_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"cat": 30, "dog": 30})
    settings = {"dataset": "image_folder", "data_path": str(tmp_path), "image_size": 16, "workers": 0, "batch_size": 16}
    config = RunConfig.from_keywords(augmentation="resized_crop", device="cpu", student="mlp6", epochs=2, **settings)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    run = build_run(config, teacher=teacher)
    assert isinstance(run.probe, MemoryImages)
    assert torch.equal(run.probe.images, run.splits.probe.images)
    assert torch.equal(run.probe.labels, run.splits.probe.labels)
    run.reset(0)
    read: list[bool] = []
    black = torch.zeros(3, 16, 16, dtype=torch.uint8)
    monkeypatch.setattr(FileReader, "read", lambda *_, **__: read.append(True) or black)
    run.step(Temperature.shared(torch.full((16,), 4.0)))
    assert len(read) == 16  # the next batch
