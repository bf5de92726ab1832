"""Data sets by name, one file a source, and the stream of batches. A new one is a file and a line in ``DATASETS``."""

from __future__ import annotations

from rlkd_env.data.digits import Digits
from rlkd_env.data.splits import DataSource, ImageSet, Splits
from rlkd_env.data.stream import Batch, BatchStream, seeded_generator
from rlkd_env.registry import Registry

DATASETS: Registry[type[DataSource]] = Registry("data set")
DATASETS.register("digits")(Digits)

__all__ = ["DATASETS", "Batch", "BatchStream", "DataSource", "ImageSet", "Splits", "seeded_generator"]
