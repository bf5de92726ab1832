"""K runs as one computation on stacked students."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkd_env.data import Batch, BatchStream, ImageSet
from rlkd_env.data.images import MemoryImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.parallel.base import ParallelRuns, Update, own_images
from rlkd_env.runs.parallel.stackable import why_not_stacked
from rlkd_env.runs.parallel.stacked_reward import StackedRewardMeter
from rlkd_env.runs.parallel.states import stack_states, state_of_run
from rlkd_env.runs.parallel.students import StackedStudents
from rlkd_env.runs.reward import Measurement
from rlkd_env.runs.run import STATE_VERSION, DistillationRun
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.randomness import seeded


class StackedRuns(ParallelRuns):
    """All students in one forward and one backward, and one ordinary optimiser of the stacked weights.

    SGD and Adam work on every weight by itself, so the sum of the runs' losses trains each as its own loss would. Where
    the training images have no random views, the teacher's logits are computed once for each image.

    Raises:
        UsageError: for students with buffers or random numbers, methods whose losses are not those of single instances,
            and batches that a sampler chooses.
    """

    mode = "stacked"
    keeps_gradients = True

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        super().__init__(template, num_runs)
        reason = why_not_stacked(template)
        if reason is not None:
            raise UsageError(f"the runs cannot be stacked: {reason}; use the mode workers or serial")
        self._engine = template.task.engine
        self._train = template.splits.train
        self._has_plain_images = isinstance(self._train, MemoryImages) and not self._train.is_random
        self._cache = template.shared_teacher_cache()
        self._reward = StackedRewardMeter(template.reward.name, template.reward.interval, num_runs)

    def evaluate(self, images: ImageSet) -> Evaluation:
        """Measure all students on a set of images: accuracy ``(K,)`` and loss ``(K,)``, on the device."""
        return self._students.evaluate(images)

    def _start(self) -> None:
        self._create_modules()
        self._forward()
        self._reward.reset(self._measurement())

    def _update(self, temperature: Temperature) -> Update:
        parts = {name: self._by_run(part) for name, part in self._method(self.outputs, temperature).items()}
        loss = torch.stack(list(parts.values())).sum(dim=0).mean(dim=1)
        self._optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        self._optimizer.step()
        self._schedule.step()
        self._forward()
        reward = self._reward.after_update(self._measurement(), is_last=self.finished)
        logits_finite = self._by_run(self.outputs.student_logits.detach()).isfinite().flatten(1).all(dim=1)
        diverged = ~(loss.detach().isfinite() & logits_finite & reward.isfinite())
        return Update(
            torch.where(diverged, self.template.divergence_penalty, reward),
            diverged,
            {"loss": loss.detach(), **{f"loss_{name}": part.detach().mean(dim=1) for name, part in parts.items()}},
        )

    def _create_modules(self) -> None:
        students = []
        for seed in self.seeds:
            with seeded(seed, self.device):
                students.append(self.template.create_student().to(self.device).train())
        self._students = StackedStudents(students)
        self._method = self.template.create_method(students[0]).to(self.device).train()
        self._method.num_runs = self.num_runs
        recipe = self.template.recipe
        self._optimizer = recipe.create_optimizer(list(self._students.parameters.values()))
        self._schedule = recipe.create_schedule(self._optimizer, self.total_steps)
        self._streams = [
            BatchStream(own_images(self._train, self.num_runs), self.batch_size, seed, self.template.views)
            for seed in self.seeds
        ]
        self._ordered_epoch = -1

    def _forward(self) -> None:
        batch = self._batch()
        images = self._engine.images(batch.images)
        with self._engine.autocast():
            student_logits = self._students.forward(self._by_run(images)).flatten(0, 1).float()
        teacher_logits = None if self._cache is None else self._cache.logits(batch)
        if teacher_logits is None:
            with torch.no_grad():
                teacher_logits = self._engine.forward(self.template.frozen_teacher, images)
        self.outputs = InstanceOutputs(
            student_logits,
            teacher_logits,
            batch.labels,
            progress=self.step_count / self.total_steps,
            indices=batch.indices,
            epoch=self.step_count / self.steps_per_epoch,
            step=self.step_count,
            num_runs=self.num_runs,
        )

    def _batch(self) -> Batch:
        """Return the step's batches of all runs as one; random views are drawn run by run, as each has its own seed."""
        epoch, position = divmod(self.step_count, self.steps_per_epoch)
        if not self._has_plain_images:
            batches = [stream.batch(self.step_count) for stream in self._streams]
            images, labels, indices = (
                torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels", "indices")
            )
            return Batch(images, labels, indices, view=batches[0].view)
        if epoch != self._ordered_epoch:
            self._ordered_epoch = epoch
            self._order = torch.stack([stream.order(epoch) for stream in self._streams])
        indices = self._order[:, position * self.batch_size : (position + 1) * self.batch_size].flatten()
        return Batch(self._train.take(indices), self._train.labels[indices], indices, view=0)

    def _by_run(self, values: Tensor) -> Tensor:
        """View ``(K·B, ...)`` as ``(K, B, ...)``."""
        return values.unflatten(0, (self.num_runs, self.batch_size))

    def _measurement(self) -> Measurement:
        return Measurement(self.outputs, lambda: self.evaluate(self.template.probe))

    def _run_states(self) -> list[dict[str, Any]]:
        optimizer, reward = self._optimizer.state_dict(), self._reward.state_dict()
        return [
            {
                "version": STATE_VERSION,
                "seed": seed,
                "step_count": self.step_count,
                "student": {name: value[run].detach().clone() for name, value in self._students.parameters.items()},
                "method": {},
                "optimizer": state_of_run(optimizer, run),
                "method_optimizer": None,
                "schedule": self._schedule.state_dict(),
                "reward": {"last": reward["last"][run].clone(), "updates": reward["updates"]},
                "sampler": None,
                "policy": {},
            }
            for run, seed in enumerate(self.seeds)
        ]

    def _restore(self, states: list[dict[str, Any]]) -> None:
        if any(state["sampler"] is not None for state in states):
            raise UsageError("a run's state with an exploration or curriculum cannot be stacked")
        self._create_modules()
        with torch.no_grad():
            for name, value in self._students.parameters.items():
                value.copy_(torch.stack([state["student"][name] for state in states]))
        self._optimizer.load_state_dict(stack_states([state["optimizer"] for state in states]))
        self._schedule.load_state_dict(states[0]["schedule"])
        self._forward()
        self._reward.reset(self._measurement())
        last = torch.stack([state["reward"]["last"] for state in states])
        self._reward.load_state_dict({"last": last, "updates": states[0]["reward"]["updates"]})
