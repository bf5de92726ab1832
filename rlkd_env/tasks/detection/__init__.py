"""Object detection: the student proposes regions, both networks classify them, and COCO's average precision judges."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.tasks.detection.average_precision import Detections as Detections
    from rlkd_env.tasks.detection.task import Detection as Detection
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
