"""Knowledge-distillation runs as Gymnasium environments: the agent sets every training instance's temperature.

Importing this package registers ``rlkd/Digits-v0`` and ``rlkd/Classification-v0`` for ``gym.make`` and
``gym.make_vec``. Where Gymnasium is not installed nothing is registered and the rest works.
"""

from __future__ import annotations

from importlib.util import find_spec

from rlkd_env.registry import UsageError

if find_spec("gymnasium") is not None:
    from gymnasium.envs.registration import register

    for _name, _settings in (("Classification", {}), ("Digits", {"dataset": "digits"})):
        register(
            id=f"rlkd/{_name}-v0",
            entry_point="rlkd_env.env:KDEnv",
            vector_entry_point="rlkd_env.env:KDVectorEnv",
            kwargs=_settings,
        )

__all__ = ["UsageError"]
