"""The knowledge-distillation run as Gymnasium environments."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.envs.checker import VectorEnvError as VectorEnvError, check_vector_env as check_vector_env
    from rlkd_env.envs.coefficient_env import CoefficientVectorEnv as CoefficientVectorEnv
    from rlkd_env.envs.kd_env import KDEnv as KDEnv
    from rlkd_env.envs.registration import register_envs as register_envs
    from rlkd_env.envs.vector_env import KDVectorEnv as KDVectorEnv
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
