"""Knowledge-distillation runs as Gymnasium environments: the agent sets every training instance's temperature.

Importing this package imports neither PyTorch nor Gymnasium. As soon as Gymnasium is imported, it registers
``rlkd/Digits-v0``, ``rlkd/CIFAR100-v0`` and so on for ``gym.make`` and ``gym.make_vec``; without Gymnasium the rest
works.
"""

from rlkd_env.envs.registration import register_with_gymnasium
from rlkd_env.errors import UsageError

register_with_gymnasium()

__version__ = "0.3.0.dev0"
__all__ = ["UsageError", "__version__"]
