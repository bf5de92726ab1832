"""The KD run as a Gymnasium vector environment: one instance is one slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlkd_env.envs.requests import (
    MAX_SEED,
    Seed,
    autoreset_mode as read_mode,
    check_observation,
    check_options,
    run_seeds,
)
from rlkd_env.envs.stepper import RunStepper
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.config import default_batch_size, instances_per_image
from rlkd_env.runs.parallel import ParallelRuns, RunMode
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.choices import ActionKind, ObservationKind


class KDVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A KD run as a vector environment: slot i is instance i of the batch, and every slot earns the batch reward.

    Observation ``Box(N, d)``, action ``Box(N, 1)``, reward ``(N,)``; with ``temperatures="separate"`` the action is
    ``Box(N, 2)``, for the teacher's and the student's temperature. All slots end together, and start anew in the step
    after it, which ignores its action (next-step autoreset), or in the same one.

    With ``num_runs=K`` it is K runs at once, each of another student: slot r·B + i is instance i of run r's batch and
    earns run r's reward. A run that diverges earns the penalty, is named in ``info["diverged"]`` and stays as an
    absorbing state without rewards until all runs end together. If it started anew on its own, it would leave the
    schedule that stacked students share.

    Every step's ``info`` has figures of the slots' runs, arrays ``(N,)`` with a mask ``_name`` that is false where one
    is not finite: the batch's ``loss`` and its parts, ``probe_loss`` and ``probe_accuracy`` where the reward has
    measured them, and the mean ``temperature``. The last step of an episode has ``validation_accuracy`` and
    ``validation_loss`` of the students too.

    Args:
        num_envs: number of slots, K times the batch size; in detection times the proposals of an image too.
        num_runs: number of runs K.
        run_mode: how several runs are computed: ``"stacked"``, ``"workers"``, ``"serial"``, or ``"auto"`` for the one
            that is measured to be the fastest here.
        action: ``"normalized"``: numbers in ``[-1, 1]``, which are temperatures on a log scale; or ``"temperature"``.
            The registered ids take normalised ones.
        observation: a slot's observation is flat already, so ``"flat"`` and ``"batch"`` are the same here.
        max_episode_steps: number of updates after which an episode is truncated; None leaves it to the schedule.
        autoreset_mode: ``"next_step"``; or ``"same_step"``, where ``info["final_obs"]`` and ``info["final_info"]`` hold
            what the last step has shown.
        render_mode: ``"rgb_array"`` for a picture of the batch's temperatures against its difficulty.
        run: a run that is already built, in place of the settings.
        settings: fields of :class:`~rlkd_env.runs.config.RunConfig`, see :class:`~rlkd_env.envs.stepper.RunStepper`.

    Raises:
        UsageError: if a setting is unknown, which is a TypeError too, or invalid, or ``num_envs`` does not match
            ``num_runs`` and ``batch_size``.

    Example:
        >>> import gymnasium as gym, rlkd_env
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=64)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape, envs.action_space.shape
        ((64, 4), (64, 1))
        >>> envs = gym.make_vec("rlkd/Digits-v0", num_envs=512, num_runs=8)
        >>> envs.runs.batch_size
        64
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own form)
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int | None = None,
        *,
        num_runs: int = 1,
        run_mode: RunMode = "auto",
        action: ActionKind = "temperature",
        observation: ObservationKind = "batch",
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        run: DistillationRun | None = None,
        **settings: Any,
    ) -> None:
        check_observation(observation)
        if max_episode_steps is not None and max_episode_steps < 1:
            raise UsageError(f"an episode needs at least 1 step, not max_episode_steps={max_episode_steps}")
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = read_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        if run is not None:
            self.num_envs, _ = _slots(num_envs, num_runs, run.batch_size)
        else:
            per_image = instances_per_image(settings)
            self.num_envs, settings["batch_size"] = _slots(num_envs, num_runs, settings.get("batch_size"), per_image)
        self.num_runs = num_runs
        self.render_mode = render_mode
        self._stepper = RunStepper(KDVectorEnv, settings, run, action, render_mode, num_runs, run_mode)
        self.single_observation_space = self._stepper.single_observation_space
        self.single_action_space = self._stepper.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._reset_next = True
        self._had_diverged = np.zeros(num_runs, dtype=bool)

    @property
    def run(self) -> DistillationRun:
        """The run behind the slots; a UsageError if there are several.

        Raises:
            UsageError: if there are several.
        """
        if self._stepper.runs is not None:
            raise UsageError(f"this needs a single run, but there are num_runs={self.num_runs} of them")
        return self._stepper.run

    @property
    def template(self) -> DistillationRun:
        """The run behind the slots; if there are several, a run of the same ingredients that is not started."""
        return self._stepper.run

    @property
    def runs(self) -> ParallelRuns:
        """The several runs behind the slots; a UsageError if there is only one.

        Raises:
            UsageError: if there is only one.
        """
        if self._stepper.runs is None:
            raise UsageError("this needs several runs: pass num_runs")
        return self._stepper.runs

    @property
    def action_map(self) -> ActionMap | None:
        """The map from normalised actions to temperatures; None where actions are temperatures."""
        return self._stepper.action_map

    def reset(
        self, *, seed: Seed | Sequence[Seed] = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start fresh students with the seeds ``seed``, ``seed + 1``, ...; None draws them from the generator.

        A sequence has a seed for each of K runs or N slots; then a run's seed is its first slot's. The only option is a
        ``reset_mask`` of all slots.

        Raises:
            UsageError: if there are other options, a mask of some slots only, or too few or too many seeds.
        """
        check_options(options)
        asked = run_seeds(seed, self.num_envs, self.num_runs)
        super().reset(seed=asked[0])
        self._reset_next = False
        self._had_diverged = np.zeros(self.num_runs, dtype=bool)
        seeds = [int(self.np_random.integers(MAX_SEED)) if one is None else one for one in asked]
        return self._stepper.reset(seeds), {}

    def observe(self) -> np.ndarray:
        """Return the current observation ``(N, d)`` without stepping, as after a restored or advanced run."""
        self._reset_next = False
        if self._stepper.runs is not None:
            self._had_diverged = self._stepper.runs.diverged.cpu().numpy()
        return self._stepper.observe()

    @property
    def outputs(self) -> InstanceOutputs | None:
        """The outputs of the N waiting instances, on the device; None before the first reset."""
        return self._stepper.outputs

    def step(
        self, actions: np.ndarray | Temperature
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Update the students with actions ``(N, 1)`` or ``(N, 2)``, which are clipped to their space.

        The temperatures of a policy, on the runs' device, may have a factor or gradients and are not clipped.
        """
        if self._reset_next:
            observation, info = self.reset()
            never = np.zeros(self.num_envs, dtype=bool)
            return observation, np.zeros(self.num_envs, dtype=np.float32), never, never.copy(), info
        transition = self._stepper.step(actions)
        is_terminated = transition.is_over
        is_truncated = not is_terminated and self._stepper.step_count == self.max_episode_steps
        info = self._figures(transition.figures) | self._divergences(transition.diverged, is_terminated)
        observation = transition.observation
        if is_terminated or is_truncated:
            if not transition.diverged.all():
                info |= self._figures(self._stepper.student_figures(), ~transition.diverged)
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                final = {"final_obs": observation, "final_info": info}
                observation, info = self.reset()
                info |= final | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in final}
            else:
                self._reset_next = True
        reward = self._per_slot(transition.reward.astype(np.float32))
        terminated, truncated = (np.full(self.num_envs, flag) for flag in (is_terminated, is_truncated))
        return observation, reward, terminated, truncated, info

    def _figures(self, figures: dict[str, np.ndarray], known: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return figures ``(K,)`` as those of the slots ``(N,)``, with masks of those that are known and finite."""
        values = np.stack(list(figures.values()))
        present = np.isfinite(values) if known is None else np.isfinite(values) & known
        slots = self.num_envs // self.num_runs
        told = np.where(present, values, np.float32(0.0)).repeat(slots, axis=1)
        masks = present.repeat(slots, axis=1)
        info: dict[str, np.ndarray] = {}
        for name, row, mask in zip(figures, told, masks, strict=True):
            info[name], info[f"_{name}"] = row, mask
        return info

    def _divergences(self, diverged: np.ndarray, is_over: bool) -> dict[str, Any]:
        """Return which slots have diverged: all of them at the end, and before it those that have just done so."""
        news, self._had_diverged = diverged & ~self._had_diverged, diverged
        if not is_over and not news.any():
            return {}
        told = np.ones_like(diverged) if is_over else news
        return {"diverged": self._per_slot(diverged & told), "_diverged": self._per_slot(told)}

    def _per_slot(self, values: np.ndarray) -> np.ndarray:
        """Repeat ``(K,)`` values for the slots ``(N,)`` of the runs."""
        return values.repeat(self.num_envs // self.num_runs)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture ``(height, width, 3)`` for every slot, all the same one, or None without a render mode."""
        return (self._stepper.render(),) * self.num_envs if self.render_mode else None

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002
        """End the processes that compute the runs, if there are any."""
        stepper = getattr(self, "_stepper", None)  # which an environment that could not be made lacks
        if stepper is not None and stepper.runs is not None:
            stepper.runs.close()


def _slots(num_envs: int | None, num_runs: int, batch_size: int | None, per_image: int = 1) -> tuple[int, int]:
    """Return the number of slots and of images in a batch, of which one follows from the other."""
    if num_runs < 1:
        raise UsageError(f"the number of runs must be at least 1, not {num_runs}")
    if batch_size is None:
        batch_size = default_batch_size(per_image) if num_envs is None else num_envs // (num_runs * per_image)
    if num_envs is None:
        num_envs = num_runs * batch_size * per_image
    if num_envs != num_runs * batch_size * per_image:
        if per_image > 1:
            raise UsageError(
                f"a slot is a region proposal: num_envs={num_envs} must be num_runs={num_runs} times "
                f"proposals={per_image} times a number of images, the batch size"
            )
        if num_runs == 1:
            raise UsageError(f"a slot is an instance: num_envs={num_envs} must equal batch_size={batch_size}")
        raise UsageError(
            f"a slot is an instance of a run: num_envs={num_envs} must be num_runs={num_runs} times the batch size"
        )
    return num_envs, batch_size
