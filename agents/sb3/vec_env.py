"""Any Gymnasium vector environment as stable-baselines3's ``VecEnv``."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


class VectorEnvAdapter(VecEnv):
    """Lets stable-baselines3 train on a Gymnasium ``VectorEnv``, whichever autoreset mode it has.

    stable-baselines3 wants the first observation of the next episode from the step that ends one, and the last one in
    ``info["terminal_observation"]``. The three autoreset modes give it so:

    * same-step: the environment does it already (``final_obs``);
    * disabled: the ended slots are reset through ``options={"reset_mask": ...}``;
    * next-step: when all slots end together, one more step brings the first observations. When only some end,
      Gymnasium's own ``SyncVectorEnv`` and ``AsyncVectorEnv`` reset those by mask. Any other environment cannot reset
      some slots without stepping the rest; there the reset step is handed on as an episode of its own, of one step
      and no reward, so that no value leaks from one episode into another (``info["autoreset"]`` marks it).

    The environment must declare its mode in ``metadata["autoreset_mode"]``, as Gymnasium 1.1 asks for.

    Raises:
        ValueError: if the environment does not declare its autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(f"{env} does not declare metadata['autoreset_mode']: {mode!r}")
        self.env = env
        self._mode = mode
        self._can_reset_some = mode is AutoresetMode.DISABLED or type(env) in (SyncVectorEnv, AsyncVectorEnv)
        self._awaiting_reset = np.zeros(env.num_envs, dtype=bool)
        self._last_observation: VecEnvObs | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all slots with the seed and options that were set since the last reset."""
        observation, infos = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _infos_by_slot(infos, self.num_envs)
        self._awaiting_reset[:] = False
        self._last_observation = deepcopy(observation)
        return deepcopy(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and reset what ended."""
        was_awaiting = self._awaiting_reset.copy()
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        observation = deepcopy(observation)
        rewards = np.array(reward, dtype=np.float32)
        done = np.logical_or(terminated, truncated)
        infos = _infos_by_slot(info, self.num_envs)
        for slot in np.flatnonzero(done):
            infos[slot]["TimeLimit.truncated"] = bool(truncated[slot] and not terminated[slot])
        if done.any():
            observation, infos = self._restart(done, observation, info, infos)
        for slot in np.flatnonzero(was_awaiting):
            infos[slot]["autoreset"] = True
            infos[slot]["terminal_observation"] = _slot(self._last_observation, slot)
            rewards[slot] = 0.0
        self._last_observation = deepcopy(observation)
        return observation, rewards, done | was_awaiting, infos

    def _restart(
        self, done: np.ndarray, observation: Any, info: dict[str, Any], infos: list[dict[str, Any]]
    ) -> tuple[Any, list[dict[str, Any]]]:
        """Return the observations to go on from, and the infos with the terminal observations."""
        self._awaiting_reset[:] = False
        if self._mode is AutoresetMode.SAME_STEP:
            final_infos = _infos_by_slot(info.get("final_info", {}), self.num_envs)
            for slot in np.flatnonzero(done):
                truncated, terminal = infos[slot]["TimeLimit.truncated"], deepcopy(info["final_obs"][slot])
                ended = {"TimeLimit.truncated": truncated, "terminal_observation": terminal}
                infos[slot] = {**final_infos[slot], **ended}
            return observation, infos
        for slot in np.flatnonzero(done):
            infos[slot]["terminal_observation"] = _slot(observation, slot)
        if self._can_reset_some:
            fresh, reset_info = self.env.reset(options={"reset_mask": done.copy()})
        elif done.all():
            fresh, _, _, _, reset_info = self.env.step(self._actions)
        else:
            self._awaiting_reset = done.copy()
            return observation, infos
        reset_infos = _infos_by_slot(reset_info, self.num_envs)
        for slot in np.flatnonzero(done):
            self.reset_infos[slot] = reset_infos[slot]
        return deepcopy(fresh), infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return what the environment renders; a picture that several slots share comes once."""
        frames: Any = self.env.render() or []
        return list({id(frame): frame for frame in frames}.values())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of every slot; slots of one environment share it."""
        chosen = list(self._get_indices(indices))
        base = self.env.unwrapped
        if isinstance(base, SyncVectorEnv | AsyncVectorEnv) and attr_name != "render_mode":
            values = base.get_attr(attr_name)
            return [values[slot] for slot in chosen]
        return [self._find_attribute(attr_name)] * len(chosen)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of every slot.

        Raises:
            ValueError: if only some slots are meant.
        """
        if indices is not None and len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("an attribute can be set for all slots only")
        base = self.env.unwrapped
        if isinstance(base, SyncVectorEnv | AsyncVectorEnv):
            base.set_attr(attr_name, value)
        else:
            setattr(base, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of every slot's environment; where one environment has all the slots, once."""
        chosen = list(self._get_indices(indices))
        base = self.env.unwrapped
        if isinstance(base, SyncVectorEnv | AsyncVectorEnv):
            values = base.call(method_name, *method_args, **method_kwargs)
            return [values[slot] for slot in chosen]
        return [self._find_attribute(method_name)(*method_args, **method_kwargs)] * len(chosen)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell whether the vector environment is wrapped in this class."""
        wrapped = any(isinstance(layer, wrapper_class) for layer in self._layers())
        return [wrapped] * len(list(self._get_indices(indices)))

    def _layers(self) -> list[Any]:
        """The wrappers from the outermost in, and the environment itself."""
        layers: list[Any] = [self.env]
        while layers[-1] is not layers[-1].unwrapped:
            layers.append(layers[-1].env)
        return layers

    def _find_attribute(self, name: str) -> Any:
        for layer in self._layers():
            if hasattr(layer, name):
                return getattr(layer, name)
        raise AttributeError(f"{self.env} has no attribute {name!r}")


def _slot(observation: Any, slot: np.integer[Any]) -> Any:
    """Copy one slot out of a batched observation, an array or a dict of them."""
    if isinstance(observation, dict):
        return {name: value[slot].copy() for name, value in observation.items()}
    return observation[slot].copy()


def _infos_by_slot(info: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Split Gymnasium's dict of arrays with ``_name`` masks into one dict a slot."""
    infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in info.items():
        if name in ("final_obs", "final_info") or (name.startswith("_") and name[1:] in info):
            continue
        present = info.get(f"_{name}")
        if isinstance(values, dict):
            values = _infos_by_slot(values, num_envs)
        elif np.ndim(values) == 0 and not isinstance(values, list | tuple):
            values = [values] * num_envs
        if present is None or np.all(present):  # which is the rule, and so must be quick
            for of_slot, value in zip(infos, values, strict=True):
                of_slot[name] = value
        else:
            for slot in np.flatnonzero(present):
                infos[slot][name] = values[slot]
    return infos
