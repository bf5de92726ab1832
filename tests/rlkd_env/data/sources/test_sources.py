"""Data sets from arrays, folders, torchvision and the user's own Datasets."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    BatchStream,
    DataConfig,
    DataSource,
    ImageSet,
    MemoryImages,
    Preprocessing,
    Share,
    count_duplicates,
    create_source,
)
from rlkd_env.data.sources import image_folder as image_folder_module
from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig


def pixels(count: int, size: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def write_npz(path: Path, **changes: np.ndarray | None) -> Path:
    arrays = {
        "x_train": pixels(100),
        "y_train": np.arange(100) % 4,
        "x_test": pixels(20, seed=1),
        "y_test": np.arange(20) % 4,
    }
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


def arrays_source(path: Path, **options: object) -> DataSource:
    return create_source(DataConfig(dataset="arrays", data_path=str(path), **options))


def write_folder(root: Path, counts: dict[str, int], size: int = 20) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(pixels(1, size, seed=1000 * number + index)[0]).save(root / name / f"{index:02d}.png")
    return root


def folder_source(root: Path, **options: object) -> DataSource:
    settings = {"dataset": "image_folder", "data_path": str(root), "image_size": 16, "workers": 0, **options}
    return create_source(DataConfig(**settings))


def read_everything(source: DataSource) -> None:
    splits = source.splits()
    for part in (splits.teacher_train, splits.probe, splits.validation):
        list(part.chunks(8))


def rows(images: ImageSet) -> Counter[bytes]:
    return Counter(image.numpy().tobytes() for image in images.images)


# Arrays


@pytest.mark.parametrize("layout", ["channels last", "channels first", "grey", "floats"])
def test_arrays_of_every_layout_become_the_same_pixels(layout: str, tmp_path: Path) -> None:
    images = pixels(60, channels=1 if layout == "grey" else 3)
    written = {
        "channels last": images,
        "channels first": images.transpose(0, 3, 1, 2),
        "grey": images[..., 0],
        "floats": images / 255.0,
    }[layout]
    source = arrays_source(write_npz(tmp_path / "a.npz", x_train=written, y_train=np.arange(60) % 3, x_test=None))
    splits = source.splits()
    assert source.test_set() is None
    assert splits.num_classes == 3
    assert splits.image_shape == (images.shape[-1], 8, 8)
    everything = torch.cat([splits.teacher_train.images, splits.probe.images, splits.validation.images])
    # Normalised by the statistics of all training images: together they have mean 0 and deviation 1.
    torch.testing.assert_close(everything.mean(dim=(0, 2, 3)), torch.zeros(images.shape[-1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(everything.std(dim=(0, 2, 3)), torch.ones(images.shape[-1]), atol=1e-3, rtol=0)


def test_parts_are_disjoint_stratified_and_follow_the_seed(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=pixels(400), y_train=np.arange(400) % 4)
    options = {"train_images": 100, "teacher_images": 200, "validation_images": 60, "probe_size": 40}
    splits = arrays_source(path, **options).splits()
    sizes = [len(part) for part in (splits.train, splits.teacher_train, splits.validation, splits.probe)]
    assert sizes == [100, 200, 60, 40]
    together = rows(splits.teacher_train) + rows(splits.validation) + rows(splits.probe)
    assert max(together.values()) == 1
    assert not rows(splits.train) - rows(splits.teacher_train)
    for part in (splits.train, splits.teacher_train, splits.validation, splits.probe):
        assert part.labels.bincount().tolist() == [len(part) // 4] * 4
    again, other = arrays_source(path, **options).splits(), arrays_source(path, split_seed=1, **options).splits()
    assert again.train.fingerprint() == splits.train.fingerprint()
    assert other.train.fingerprint() != splits.train.fingerprint()


def test_arrays_are_resized_on_request(tmp_path: Path) -> None:
    source = arrays_source(write_npz(tmp_path / "a.npz"), image_size=12)
    assert source.splits().image_shape == (3, 12, 12)
    assert source.test_set().image_shape == (3, 12, 12)


def test_duplicates_between_training_and_test_are_counted(tmp_path: Path) -> None:
    train = pixels(100)
    test = np.concatenate([train[:5], pixels(15, seed=1)])
    source = arrays_source(write_npz(tmp_path / "a.npz", x_train=train, x_test=test))
    images, _ = source.training_images()
    assert count_duplicates(images, source.test_set()) == 5
    assert count_duplicates(images, images.subset(torch.arange(7))) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "lacks the array x_train"),
        ({"y_test": None}, "lacks the array y_test"),
        ({"x_train": np.zeros((100, 64), np.uint8)}, r"shape \(100, 64\)"),
        ({"x_train": np.zeros((100, 8, 8, 2), np.uint8)}, "1 or 3 channels"),
        ({"x_train": np.full((100, 8, 8), 3.0)}, "from 0 to 1"),
        ({"x_train": np.full((100, 8, 8), np.nan)}, "from 0 to 1"),
        ({"x_train": np.zeros((100, 8, 8), np.int64)}, "uint8"),
        ({"y_train": np.arange(99)}, "each of the 100 images"),
        ({"y_train": np.arange(100) / 2}, "whole number"),
        ({"y_train": np.arange(100) - 1}, "class -1"),
        ({"y_test": np.full(20, 4)}, "class 4, but the training images have 4 classes"),
        ({"x_test": pixels(20, 9)}, "test images .* have the shape"),
        ({"x_train": np.array([{"a": 1}] * 100)}, "not an .npz file of plain arrays"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        arrays_source(write_npz(tmp_path / "a.npz", **changes)).splits()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_images": 1000}, "validation part cannot have 1000 images: 90 are there"),
        ({"train_images": 81}, "training part cannot have 81 images: 80 are there"),
        ({"validation_images": 0}, "cannot have 0 images"),
        ({"augmentation": "resized_crop"}, "needs image files"),
    ],
)
def test_impossible_parts_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        arrays_source(write_npz(tmp_path / "a.npz"), **options).splits()


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*missing.npz: pass an .npz"):
        arrays_source(tmp_path / "missing.npz").splits()
    path = write_npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UsageError, match=r"not an .npz file"):
        arrays_source(path).splits()


# Random views


def test_crops_are_windows_of_the_padded_image_and_flips_their_mirror_images() -> None:
    images = torch.from_numpy(pixels(64).transpose(0, 3, 1, 2).copy())
    preprocessing = Preprocessing(crop_padding=2, flip=True)
    views = preprocessing.augment(images, preprocessing.draw(64, seed=3))
    padded = torch.nn.functional.pad(images, [2] * 4)
    seen = set()
    for image, view in zip(padded, views, strict=True):
        windows = {
            (row, column, flipped): window.flip(-1) if flipped else window
            for row in range(5)
            for column in range(5)
            for flipped in (False, True)
            for window in [image[:, row : row + 8, column : column + 8]]
        }
        (found,) = [place for place, window in windows.items() if torch.equal(window, view)]
        seen.add(found)
    assert {place[2] for place in seen} == {False, True}
    assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(5))
    assert torch.equal(preprocessing.draw(64, seed=3), preprocessing.draw(64, seed=3))
    assert not torch.equal(preprocessing.draw(64, seed=3), preprocessing.draw(64, seed=4))


@pytest.mark.parametrize("is_streamed", [False, True])
def test_shares_of_a_batch_are_pieces_of_it_in_the_same_random_views(is_streamed: bool, tmp_path: Path) -> None:
    if is_streamed:
        write_folder(tmp_path / "train", {"cat": 20, "dog": 20}, size=24)
        data = folder_source(tmp_path, image_size=16, augmentation="resized_crop").splits().train
        assert isinstance(data, StreamedImages)
    else:
        images = torch.from_numpy(pixels(30).transpose(0, 3, 1, 2).copy())
        data = MemoryImages(images, torch.arange(30) % 3, Preprocessing(crop_padding=2, flip=True))
    whole = BatchStream(data, 12, seed=1)
    streams = [BatchStream(data, 12, 1, share=Share(index, 3)) for index in range(3)]
    for step in (0, 1, 3):
        batches = [stream.batch(step) for stream in streams]
        assert torch.equal(torch.cat([batch.images for batch in batches]), whole.batch(step).images)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), whole.batch(step).labels)
        assert torch.equal(torch.cat([batch.indices for batch in batches]), whole.indices(step))
        assert {batch.view for batch in batches} == {whole.batch(step).view}
        taken = [stream.take(whole.indices(step), step, 7).images for stream in streams]
        assert torch.equal(torch.cat(taken), whole.take(whole.indices(step), step, 7).images)


def test_only_training_images_are_augmented(tmp_path: Path) -> None:
    splits = arrays_source(write_npz(tmp_path / "a.npz"), augmentation="crop_flip").splits()
    positions = torch.arange(10)
    assert torch.equal(splits.train.take(positions), splits.train.images[:10])
    assert not torch.equal(splits.train.take(positions, view=0), splits.train.images[:10])
    assert torch.equal(torch.cat(list(splits.train.chunks(16))), splits.train.images)


# Data sets of torchvision


def test_small_sets_are_read_from_arrays_of_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "cifar100.npz", x_train=pixels(100, 32), x_test=pixels(20, 32, seed=1))
    monkeypatch.setenv("RLKD_DATA", str(tmp_path))
    source = create_source(DataConfig(dataset="cifar100"))
    splits = source.splits()
    assert splits.train.preprocessing == Preprocessing((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), 4, True)
    assert len(source.test_set()) == 20


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "tiny_imagenet", "imagenet"])
def test_a_missing_data_set_says_where_it_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)) as error:
        create_source(DataConfig(dataset=name, data_path=str(tmp_path))).splits()
    assert name == "imagenet" or "--download" in str(error.value)
    assert "\n" not in str(error.value)


def test_tiny_imagenet_reads_the_labels_of_its_validation_images(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        write_folder(root / "train", {f"{name}/images": 10}, size=64)
    write_folder(root / "val", {"images": 4}, size=64)
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"{index:02d}.png\tn0{index % 2 + 1}\t0\t0\t9\t9\n" for index in range(4))
    )
    source = create_source(DataConfig(dataset="tiny_imagenet", data_path=str(tmp_path)))
    assert source.splits().image_shape == (3, 64, 64)
    assert source.test_set().labels.tolist() == [0, 1, 0, 1]


# Folders


def test_a_folder_is_read_into_memory(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 20, "dog": 20})
    write_folder(tmp_path / "test", {"cat": 3, "dog": 3})
    source = folder_source(tmp_path)
    splits = source.splits()
    assert isinstance(splits.train, MemoryImages)
    assert splits.num_classes == 2
    assert splits.image_shape == (3, 16, 16)
    assert source.test_set().labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_streamed_images_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 20})
    memory = folder_source(tmp_path, augmentation="none").splits()
    monkeypatch.setattr(image_folder_module, "MEMORY_LIMIT", 0)
    streamed = folder_source(tmp_path, augmentation="none").splits()
    assert isinstance(streamed.train, StreamedImages)
    torch.testing.assert_close(streamed.train.images, memory.train.images)
    assert torch.equal(streamed.train.labels, memory.train.labels)
    assert folder_source(tmp_path).test_set() is None


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


@pytest.mark.parametrize("streams", [False, True])
def test_damaged_images_are_named_and_refused_or_skipped(
    streams: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 20})
    damaged = tmp_path / "cat" / "07.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    options = {"augmentation": "resized_crop" if streams else "none"}
    with pytest.raises(UsageError, match=r"cat/07\.png cannot be read"):
        read_everything(folder_source(tmp_path, **options))
    splits = folder_source(tmp_path, **options, damaged_images="skip").splits()
    assert "skipped" in capsys.readouterr().err
    assert sum(len(part) for part in (splits.teacher_train, splits.probe, splits.validation)) == 39
    labels = torch.cat([splits.teacher_train.labels, splits.probe.labels, splits.validation.labels])
    assert labels.bincount().tolist() == [19, 20]


def test_a_damaged_image_in_a_worker_ends_with_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20})
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"no image")
    images = folder_source(tmp_path, augmentation="resized_crop", workers=1).splits().train
    with pytest.raises(UsageError, match="cannot be read") as error:
        next(images.follow(iter([(torch.arange(4), 0)])))
    assert "\n" not in str(error.value)


def test_grey_files_become_rgb_and_it_is_said(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20})
    Image.fromarray(pixels(1, 20, 1)[0, ..., 0]).save(tmp_path / "cat" / "00.png")
    with pytest.warns(UserWarning, match="converted to RGB"):
        assert folder_source(tmp_path).splits().image_shape == (3, 16, 16)


def test_impossible_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        folder_source(tmp_path / "missing").splits()
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="one folder per class"):
        folder_source(tmp_path / "empty").splits()
    root = write_folder(tmp_path / "parts" / "train", {"cat": 12, "dog": 12}).parent
    write_folder(root / "val", {"cat": 2, "emu": 2})
    with pytest.raises(UsageError, match="cat, emu, the training images cat, dog"):
        folder_source(root).test_set()
    monkeypatch.setattr(image_folder_module, "MEMORY_LIMIT", 0)
    with pytest.raises(UsageError, match="do not fit into memory"):
        folder_source(root, augmentation="crop_flip").splits()


# The user's own Datasets


class LabelledTensors(TensorDataset):
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__(images, labels)
        self.targets = labels


def make_dataset(train: bool) -> TensorDataset | None:
    images = torch.from_numpy(pixels(60).transpose(0, 3, 1, 2).copy())
    return LabelledTensors(images, torch.arange(60) % 3) if train else None


def make_unlabelled(train: bool) -> TensorDataset:
    return TensorDataset(torch.rand(30, 1, 8, 8), torch.arange(30) % 3)


def make_nothing() -> None:
    return None


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "users_data", sys.modules[__name__])
    return "users_data"


def test_a_dataset_is_found_by_its_path(importable: str) -> None:
    source = create_source(DataConfig(dataset=f"{importable}:make_dataset", workers=0))
    splits = source.splits()
    assert (splits.num_classes, splits.image_shape, source.test_set()) == (3, (3, 8, 8), None)
    assert splits.train.take(torch.arange(4)).max() <= 1.0
    plain = create_source(DataConfig(dataset=f"{importable}:make_unlabelled", workers=0)).splits()
    assert plain.train.labels.bincount().tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.module:make", "the module 'no.such.module' cannot be imported"),
        ("users_data:missing", "has no 'missing'"),
        ("users_data:make_nothing", "must take train=True"),
    ],
)
def test_paths_that_lead_nowhere_are_refused(path: str, message: str, importable: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_source(DataConfig(dataset=path)).splits()


# As environments


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "ImageNet", "Arrays", "ImageFolder", "FashionMNIST"])
def test_every_data_set_is_an_environment(name: str, tmp_path: Path) -> None:
    if name == "Arrays":
        path = write_npz(tmp_path / "a.npz")
    elif name in ("ImageFolder", "ImageNet"):
        path = tmp_path
        write_folder(path / "train", {"cat": 40, "dog": 40}, size=24)
        write_folder(path / "val", {"cat": 2, "dog": 2}, size=24)
    else:
        path = tmp_path
        write_npz(path / f"{'fashion_mnist' if name == 'FashionMNIST' else name.lower()}.npz")
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2 if "Image" in name else 4))
    size = 16 if "Image" in name else 8
    teacher(torch.zeros(1, 3, size, size))
    settings = {"image_size": 16} if "Image" in name else {}
    envs = gym.make_vec(
        f"rlkd/{name}-v0",
        num_envs=32,
        data_path=str(path),
        teacher=teacher,
        student="mlp6",
        epochs=1,
        device="cpu",
        **settings,
    )
    envs.reset(seed=0)
    observation, reward, *_ = envs.step(envs.action_space.sample())
    assert np.isfinite(observation).all()
    assert np.isfinite(reward).all()


@pytest.mark.real_data
@pytest.mark.skipif("RLKD_DATA" not in os.environ, reason="RLKD_DATA names no folder of real data")
@pytest.mark.parametrize(
    ("name", "classes", "shape", "sizes"),
    [
        ("cifar100", 100, (3, 32, 32), (46988, 512, 2500, 10000)),
        ("fashion_mnist", 10, (1, 28, 28), (56988, 512, 2500, 10000)),
    ],
)
def test_real_data_sets_are_split_as_documented(
    name: str, classes: int, shape: tuple[int, int, int], sizes: tuple[int, ...]
) -> None:
    source = create_source(DataConfig(dataset=name))
    splits, test = source.splits(), source.test_set()
    assert (splits.num_classes, splits.image_shape) == (classes, shape)
    assert tuple(len(part) for part in (splits.train, splits.probe, splits.validation, test)) == sizes
    shares = splits.validation.labels.bincount() / len(splits.validation)
    assert (shares - 1 / classes).abs().max() < 0.002
