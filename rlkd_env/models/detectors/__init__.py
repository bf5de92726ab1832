"""Faster R-CNN with a feature pyramid, the backbones it is built on, and pretrained weights."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.models.detectors.detector import (
        Detector as Detector,
        DetectorOptions as DetectorOptions,
        create_detector as create_detector,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
