"""K runs, one after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkd_env.data import ImageSet
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.loop import UpdateResult
from rlkd_env.runs.parallel.base import ParallelRuns, joined_evaluations, own_images
from rlkd_env.runs.run import DistillationRun
from rlkd_env.tasks import Evaluation


class SerialRuns(ParallelRuns):
    """One ordinary run after another: bit for bit the single runs, for every student, method and sampler."""

    mode = "serial"

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        super().__init__(template, num_runs)
        self.runs = [template.sibling() for _ in range(num_runs)]
        for run in self.runs:
            run.splits = replace(run.splits, train=own_images(run.splits.train, num_runs))
            if run.splits.train.is_random:  # every run has views, and so a memory of the teacher, of its own
                run.teacher_cache_bytes //= num_runs

    def weights(self) -> list[dict[str, Tensor]]:
        """Return the students' state dicts, in the runs' order, independent of the runs from now on."""
        return [run.weights() for run in self.runs]

    def evaluate(self, images: ImageSet) -> Evaluation:
        """Measure all students on a set of images: accuracy ``(K,)`` and loss ``(K,)``, on the device."""
        return joined_evaluations(run.evaluate_student(images) for run in self.runs)

    def _start(self) -> None:
        self._join([run.reset(seed) for run, seed in zip(self.runs, self.seeds, strict=True)])

    def _update(self, temperature: Temperature, is_rewarded: bool) -> UpdateResult:
        starts = range(0, self.num_instances, self.batch_size)
        parts = [temperature.rows(slice(start, start + self.batch_size)) for start in starts]
        outputs = self.outputs
        results = [run.step(part, is_rewarded) for run, part in zip(self.runs, parts, strict=True)]
        self._join([result.state for result in results])
        return UpdateResult(
            reward=torch.stack([result.reward for result in results]),
            diverged=torch.stack([result.diverged for result in results]),
            metrics={name: torch.stack([result.metrics[name] for result in results]) for name in results[0].metrics},
            outputs=outputs,
        )

    def _run_states(self) -> list[dict[str, Any]]:
        return [run.state_dict() for run in self.runs]

    def _restore(self, states: list[dict[str, Any]]) -> None:
        self._join([run.load_state_dict(state) for run, state in zip(self.runs, states, strict=True)])

    def _join(self, states: list[Tensor]) -> None:
        self.outputs = InstanceOutputs.join([run.outputs for run in self.runs])
        self._observed = torch.cat(states)

    def _observe(self) -> Tensor:
        return self._observed
