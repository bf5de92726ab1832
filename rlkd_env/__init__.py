"""Knowledge-distillation runs as Gymnasium environments: the agent sets every training instance's temperature.

Importing this package imports no PyTorch. It registers ``rlkd/Digits-v0``, ``rlkd/CIFAR100-v0`` and so on for
``gym.make`` and ``gym.make_vec``; without Gymnasium nothing is registered, and the rest works.
"""

from importlib.util import find_spec

from rlkd_env.errors import UsageError

if find_spec("gymnasium") is not None:
    from rlkd_env.envs.registration import register_envs

    register_envs()

__version__ = "0.1.0"
__all__ = ["UsageError", "__version__"]
