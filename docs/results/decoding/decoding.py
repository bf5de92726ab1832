"""Pillow or torchvision: what decodes a JPEG file and brings a random part of it to 224 by 224 the soonest?

The files are the made-up ones of ``rlkd bench --data``. The ways take turns, round after round, on one core;
``decoding.csv`` gets each one's milliseconds an image, the largest difference of a value to Pillow's, of 255, and the
share of values that differ. Half a minute:

    python docs/results/decoding/decoding.py
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from experiments.commands.bench.pipeline import write_files

FILE = Path(__file__).parent / "decoding.csv"
ROUNDS = 9
CROP = v2.RandomResizedCrop(224)


def by_pillow(path: Path) -> Tensor:
    """Decode and resize with Pillow, as the package does."""
    with Image.open(path) as image:
        image.load()
        return transforms.pil_to_tensor(CROP(image))


def by_both(path: Path) -> Tensor:
    """Decode with torchvision and resize with Pillow."""
    return transforms.pil_to_tensor(CROP(transforms.to_pil_image(decoded(path))))


def by_torchvision(path: Path) -> Tensor:
    """Decode and resize with torchvision."""
    return CROP(decoded(path))


def decoded(path: Path) -> Tensor:
    """Decode with torchvision."""
    return decode_jpeg(read_file(str(path)), ImageReadMode.RGB)


WAYS: dict[str, Callable[[Path], Tensor]] = {
    "Pillow": by_pillow,
    "torchvision, resized by Pillow": by_both,
    "torchvision": by_torchvision,
}


def drawn(way: Callable[[Path], Tensor], paths: list[Path]) -> Tensor:
    """Return the same random views of all files ``(n, 3, 224, 224)``."""
    torch.default_generator.manual_seed(0)
    return torch.stack([way(path) for path in paths])


def main() -> None:
    """Measure and write the file."""
    torch.set_num_threads(1)
    milliseconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        paths = sorted(Path(folder).rglob("*.jpg"))
        views = {name: drawn(way, paths).int() for name, way in WAYS.items()}
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                started = time.perf_counter()
                drawn(way, paths)
                milliseconds[name].append(1e3 * (time.perf_counter() - started) / len(paths))
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["way", "milliseconds", "least", "greatest", "largest_difference", "share_of_values"])
        for name, times in milliseconds.items():
            difference = (views[name] - views["Pillow"]).abs()
            share = (difference > 0).float().mean()
            figures = (median(times), min(times), max(times), int(difference.max()), float(share))
            writer.writerow([name, *(f"{figure:.6g}" for figure in figures)])


if __name__ == "__main__":
    main()
