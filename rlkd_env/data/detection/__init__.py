"""Data sets of images with boxes: what is annotated, how images are fitted, and one file for each kind of source."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.data.detection.annotations import Annotations as Annotations, Objects as Objects
    from rlkd_env.data.detection.coco import COCO as COCO
    from rlkd_env.data.detection.digits_detection import DigitsDetection as DigitsDetection
    from rlkd_env.data.detection.image_sets import (
        DetectionSet as DetectionSet,
        MemoryDetectionSet as MemoryDetectionSet,
        StreamedDetectionSet as StreamedDetectionSet,
    )
    from rlkd_env.data.detection.voc import VOC as VOC
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
