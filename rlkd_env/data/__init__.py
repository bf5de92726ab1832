"""Data sets by name, one file each and a line in ``DATASETS``, and the stream of batches."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.data.augmentation import (
        ImageChanges as ImageChanges,
        Mixing as Mixing,
        Preprocessing as Preprocessing,
    )
    from rlkd_env.data.boxes import Boxes as Boxes, Regions as Regions
    from rlkd_env.data.config import DataConfig as DataConfig
    from rlkd_env.data.create import DATASETS as DATASETS, create_source as create_source
    from rlkd_env.data.detection.image_sets import (
        DetectionSet as DetectionSet,
        MemoryDetectionSet as MemoryDetectionSet,
    )
    from rlkd_env.data.duplicates import count_duplicates as count_duplicates
    from rlkd_env.data.features import FeatureImages as FeatureImages
    from rlkd_env.data.images import ImageSet as ImageSet, MemoryImages as MemoryImages
    from rlkd_env.data.splits import (
        DataSource as DataSource,
        LabelledSource as LabelledSource,
        Splits as Splits,
        TaskName as TaskName,
    )
    from rlkd_env.data.stream import Batch as Batch, BatchStream as BatchStream, Share as Share
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
