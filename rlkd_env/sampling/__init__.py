"""What may choose a run's images in place of a shuffled pass over the data: exploration and a curriculum."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.sampling.base import SampledRun as SampledRun, Sampler as Sampler
    from rlkd_env.sampling.curriculum import CurriculumSampler as CurriculumSampler
    from rlkd_env.sampling.exploration import Explorer as Explorer
    from rlkd_env.sampling.settings import Curriculum as Curriculum, Exploration as Exploration
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
