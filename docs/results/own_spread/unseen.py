"""Write CIFAR-100 and Fashion-MNIST with training images in place of the test images, to choose defaults on.

python docs/results/own_spread/unseen.py FOLDER     # reads the folder that RLKD_DATA names
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

SIZES = {"cifar100": (16_000, 12_000), "fashion_mnist": (20_000, 10_000)}
"""Images to train and to test on, both drawn from the training images."""


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (trained, tested) in SIZES.items():
        with np.load(Path(os.environ["RLKD_DATA"]) / f"{name}.npz") as data:
            images, labels = data["x_train"], data["y_train"]
        order = np.random.default_rng(7).permutation(len(labels))
        parts = {"train": order[:trained], "test": order[trained : trained + tested]}
        arrays = {
            f"{axis}_{part}": source[rows]
            for part, rows in parts.items()
            for axis, source in (("x", images), ("y", labels))
        }
        np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
