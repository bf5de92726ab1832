"""``rlkd bench --data``: how many images a second the data path delivers, without any network."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.commands.bench.rounds import wait_for
from experiments.config import BenchConfig
from rlkd_env.data import BatchStream, DataConfig, create_source
from rlkd_env.data.images import Request
from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.runs.parallel.workers import available_cores

_FILES, _SIZES, _QUALITY = 128, ((500, 375), (375, 500)), 90
"""Made-up files: their number, widths and heights, and JPEG's quality, which are usual for ImageNet."""
_SECONDS_ON_DEVICE = 0.5


def measure_pipeline(config: BenchConfig, seconds: float) -> dict[str, Any]:
    """Measure the data set of the options, or made-up files if that is the default, which lies in memory."""
    data = config.run.data
    if data.dataset != DataConfig.dataset:
        return _measure(data, config, seconds)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        return _measure(data.replaced(dataset="image_folder", data_path=folder), config, seconds)


def write_files(root: Path) -> None:
    """Write JPEG files of ImageNet's usual size in two classes: coarse patches of colour under fine noise."""
    generator = np.random.default_rng(0)
    for number in range(_FILES):
        width, height = _SIZES[number % 2]
        coarse = generator.integers(256, size=(height // 16, width // 16, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=float)
        picture += generator.normal(0.0, 8.0, picture.shape)
        folder = root / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=_QUALITY)


def _measure(data: DataConfig, config: BenchConfig, seconds: float) -> dict[str, Any]:
    device = config.run.engine.select_device()
    train = create_source(data).splits().train
    if not isinstance(train, StreamedImages):
        raise UsageError(f"the images of {data.dataset} are in memory: --data is for those that are read from disk")
    train, size = train.to(device), config.run.recipe.batch_size
    counts = [2**power for power in range(available_cores().bit_length())]
    read = {count: _images_read(train, count, size, seconds / len(counts)) for count in counts}
    pixels = next(iter(replace(train, workers=0).read_ahead(_requests(train, size))))
    on_device = pixels.to(device)
    stages = {"normalised": _repeated(lambda: train.preprocessing.normalize(on_device), size, device)}
    if device.type == "cuda":
        stages["copied"] = _repeated(lambda: pixels.to(device, non_blocking=True), size, device)
    return {
        "dataset": data.dataset if config.run.data == data else "made-up JPEG files",
        "is_made_up": config.run.data != data,
        "image_shape": list(train.image_shape),
        "batch_size": size,
        "read_images_per_s": read,
        "device_images_per_s": stages,
    }


def _images_read(train: StreamedImages, workers: int, size: int, seconds: float) -> float:
    """Return the images a second that so many workers read, decode and bring to one size."""
    batches = replace(train, workers=workers).read_ahead(_requests(train, size))
    for _ in range(3 * workers):  # what was read ahead in the meantime would count as if it took no time
        next(batches)
    started, images = time.perf_counter(), 0
    while images == 0 or time.perf_counter() - started < seconds:
        images += len(next(batches))
    return images / (time.perf_counter() - started)


def _requests(train: StreamedImages, size: int) -> Iterator[Request]:
    """Ask for the training batches of a run, however many."""
    stream = BatchStream(train, min(size, len(train)), seed=0)
    return ((stream.indices(step), stream.view_seed(stream.view(step))) for step in itertools.count())


def _repeated(make: Callable[[], Tensor], size: int, device: torch.device) -> float:
    """Return the images a second of something that is done to a whole batch on the device."""
    make()
    wait_for(device)
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS_ON_DEVICE:
        for _ in range(8):
            make()
        wait_for(device)
        batches += 8
    return batches * size / (time.perf_counter() - started)
