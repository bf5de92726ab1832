"""K runs as one computation on stacked students."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlkd_env.data import Batch, ImageSet
from rlkd_env.data.images import MemoryImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.temperature import Temperature
from rlkd_env.models.stacking import StackedNetworks
from rlkd_env.runs.loop import TrainingLoop, UpdateResult
from rlkd_env.runs.parallel.base import ParallelRuns, own_images
from rlkd_env.runs.parallel.stackable import why_not_stacked
from rlkd_env.runs.parallel.students import evaluate_students
from rlkd_env.runs.run import STATE_VERSION, DistillationRun
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.randomness import seeded

_SHARED = "step"
"""Adam's own count, which is the same for all runs."""


class StackedRuns(ParallelRuns):
    """All students in one forward and one backward, and one ordinary optimiser of the stacked weights.

    SGD and Adam treat every weight by itself, so the sum of the runs' losses trains each student as its own loss would.
    If the training images have no random views, the teacher's logits are computed once for each image. Runs that all
    have one seed share their batches: these are drawn, and forwarded through the teacher, once.
    """

    mode = "stacked"
    keeps_gradients = True

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        super().__init__(template, num_runs)
        reason = why_not_stacked(template)
        if reason is not None:
            raise UsageError(f"the runs cannot be stacked: {reason}; use the mode workers or serial")
        self._reward = template.reward.fresh(num_runs)

    def weights(self) -> list[dict[str, Tensor]]:
        """Return the students' state dicts, in the runs' order, independent of the runs from now on."""
        with self._loop.update.optimization.averaged():
            stacked = self._students.weights.state_dict()
            return [_state_of_run(stacked, run) for run in range(self.num_runs)]

    def evaluate(self, images: ImageSet) -> Evaluation:
        """Measure all students on a set of images: accuracy ``(K,)`` and loss ``(K,)``, on the device."""
        with self._loop.update.optimization.averaged():
            return evaluate_students(self._students, self.template.task.engine.exact, images)

    def stay_plain(self, reason: str) -> None:
        """Compute updates operation by operation from now on, for these students."""
        self._loop.update.stay_plain(reason)
        self.outputs = self._loop.update.outputs

    def _start(self) -> None:
        self._begin().start()
        self.outputs = self._loop.update.outputs

    def _update(self, temperature: Temperature, is_rewarded: bool) -> UpdateResult:
        result = self._loop.step(temperature, is_rewarded)
        self.outputs = self._loop.update.outputs
        return result

    def _run_states(self) -> list[dict[str, Any]]:
        state = self._loop.state_dict()
        return [
            {"version": STATE_VERSION, "seed": seed, **_state_of_run(state, run)} for run, seed in enumerate(self.seeds)
        ]

    def _restore(self, states: list[dict[str, Any]]) -> None:
        if any(state["sampler"] is not None for state in states):
            raise UsageError("a run's state with an exploration or curriculum cannot be stacked")
        self._begin().load_state_dict(_stack_states(states))
        self.outputs = self._loop.update.outputs

    def _begin(self) -> TrainingLoop:
        """Create the students and all that belongs to them, and the loop that trains them."""
        template, students = self.template, []
        for seed in self.seeds:
            with seeded(seed, self.device):
                students.append(template.task.engine.prepare(template.create_student()).train())
        method = template.create_method(students[0]).to(self.device).train()
        shares_batches = len(set(self.seeds)) == 1
        self._students = StackedNetworks(students, shares_images=shares_batches)
        steps, seed = (self.total_steps, self.steps_per_epoch), self.seeds[0]
        stream = template.create_stream(seed)
        teacher = template.teacher_of(stream) if shares_batches else template.shared_teacher
        parts = (template.task, teacher, self._students.weights, method, template.recipe)
        update_of = partial(template.update_class, stacked=self._students, num_runs=self.num_runs)
        update = update_of(*parts, *steps, seed, self.state)
        measure = partial(evaluate_students, self._students, template.task.engine)
        evaluate = template.probe_evaluation(measure, self._students)
        draw = template.draw_batches(stream, update) if shares_batches else _StackedBatches(template, self.seeds).batch
        self._loop = TrainingLoop(template, update, lambda run: draw(run.step_count), self._reward, evaluate)
        return self._loop


class _StackedBatches:
    """Draws the batches of all runs as one; random views are drawn seed by seed, and once for runs of one seed."""

    def __init__(self, template: DistillationRun, seeds: tuple[int, ...]) -> None:
        self._train, self._size = template.splits.train, template.batch_size
        self._has_plain_images = isinstance(self._train, MemoryImages) and not self._train.is_random
        self._has_plain_images &= template.recipe.mixing is None
        distinct = dict.fromkeys(seeds)
        streams = {
            seed: template.create_stream(seed, train=own_images(self._train, len(distinct))) for seed in distinct
        }
        self._streams = list(streams.values())
        positions = {seed: position for position, seed in enumerate(streams)}
        self._stream_of_run = torch.tensor([positions[seed] for seed in seeds], device=template.device)
        self._ordered_epoch = -1

    def batch(self, step: int) -> Batch:
        """Return the ``K · B`` images of a step."""
        if not self._has_plain_images:
            batches = [stream.batch(step) for stream in self._streams]
            of_streams = [batch.tensors() for batch in batches]
            of_runs: dict[str, Any] = {
                name: torch.stack([tensors[name] for tensors in of_streams])[self._stream_of_run].flatten(0, 1)
                for name in of_streams[0]
            }
            return Batch(**of_runs, view=batches[0].view)
        epoch, position = divmod(step, self._streams[0].batches_per_epoch)
        if epoch != self._ordered_epoch:
            self._ordered_epoch = epoch
            self._order = torch.stack([stream.order(epoch) for stream in self._streams])[self._stream_of_run]
        indices = self._order[:, position * self._size : (position + 1) * self._size].flatten()
        return Batch(self._train.take(indices), self._train.labels[indices], indices, view=0)


def _state_of_run(stacked: Any, run: int) -> Any:
    """Return one run's part of a state whose tensors are those of K runs ``(K, ...)``."""
    if isinstance(stacked, dict):
        return {key: value if key == _SHARED else _state_of_run(value, run) for key, value in stacked.items()}
    if isinstance(stacked, list):
        return [_state_of_run(value, run) for value in stacked]
    return stacked[run].detach().clone() if isinstance(stacked, Tensor) else stacked


def _stack_states(states: list[Any]) -> Any:
    """Stack the states of K runs at the same step; what is no tensor is the first one's."""
    first = states[0]
    if isinstance(first, dict):
        return {
            key: value if key == _SHARED else _stack_states([state[key] for state in states])
            for key, value in first.items()
        }
    return torch.stack(states) if isinstance(first, Tensor) else first
