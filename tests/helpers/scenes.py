"""Small sets of digit scenes."""

from __future__ import annotations

import rlkd_env  # noqa: F401 (registers the environments)
from rlkd_env.data import (
    DataConfig,
    DataSource,
    create_source,
)

SMALL = {"teacher_images": 40, "train_images": 15, "validation_images": 12}


def digits_source(**options: object) -> DataSource:
    return create_source(DataConfig(**{"dataset": "digits_detection", **SMALL, **options}))
