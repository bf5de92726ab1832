"""What training a network is made of: the update, its recipe, the teacher, and the cache of the teacher's logits."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.training.frozen_features import (
        FrozenFeatures as FrozenFeatures,
        FrozenFeaturesConfig as FrozenFeaturesConfig,
    )
    from rlkd_env.training.recipe import Recipe as Recipe
    from rlkd_env.training.teacher import (
        TeacherRecipe as TeacherRecipe,
        TeacherTraining as TeacherTraining,
        cached_teacher as cached_teacher,
        load_teacher as load_teacher,
        train_teacher as train_teacher,
    )
    from rlkd_env.training.teacher_cache import (
        StoredLogits as StoredLogits,
        StoredTeacher as StoredTeacher,
        TeacherCache as TeacherCache,
    )
    from rlkd_env.training.update import Optimization as Optimization, Update as Update
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
