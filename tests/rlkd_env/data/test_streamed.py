"""Images read ahead from disk are those in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import folder_source, write_folder

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data.sources import image_folder as image_folder_module
from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig


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
    write_folder(tmp_path, {"cat": 20})
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"no image")
    images = folder_source(tmp_path, augmentation="resized_crop", workers=1).splits().train
    with pytest.raises(UsageError, match="cannot be read") as error:
        next(images.follow(iter([(torch.arange(4), 0)])))
    assert "\n" not in str(error.value)
