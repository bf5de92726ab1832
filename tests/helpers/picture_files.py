"""Files of small pictures and of teachers for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rlkd_env.models import create_model
from rlkd_env.models.storage import save_network

SHAPE, CLASSES = (3, 8, 8), 4


def write_pictures_and_teachers(folder: Path) -> Path:
    """Write 96 random pictures as ``pictures.npz``, and two teachers; return their folder."""
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "pictures.npz", x_train=images, y_train=np.arange(96) % CLASSES)
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights = create_model("cnn4", CLASSES, SHAPE).state_dict()
        save_network(folder / f"teacher{seed}.safetensors", weights, "cnn4", CLASSES, SHAPE)
    return folder
