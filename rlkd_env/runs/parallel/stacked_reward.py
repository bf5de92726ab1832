"""The batch rewards of K stacked runs, by the same potentials as those of one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.runs.reward import Measurement, RewardMeter
from rlkd_env.tasks import Evaluation


class StackedRewardMeter(RewardMeter):
    """A reward meter whose measurements are those of K runs, and whose rewards are ``(K,)``.

    Args:
        name: a name in :data:`~rlkd_env.runs.reward.REWARDS`.
        interval: updates between two measurements.
        num_runs: number of runs K.
    """

    def __init__(self, name: str, interval: int, num_runs: int) -> None:
        super().__init__(name, interval)
        self._num_runs = num_runs
        self._potential = self._potentials

    def _potentials(self, measurement: Measurement) -> Tensor:
        """Return every run's potential ``(K,)`` of a measurement of K·B instances, whose evaluation is ``(K,)``."""
        outputs, evaluate = measurement.outputs, measurement.evaluate_probe

        def of_one_run(run: Tensor, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
            of_run = InstanceOutputs(student_logits, teacher_logits, labels, outputs.progress, epoch=outputs.epoch)
            return self._reward.potential(Measurement(of_run, _picks(evaluate, run)))

        runs = torch.arange(self._num_runs, device=outputs.labels.device)
        instances = (outputs.student_logits.detach(), outputs.teacher_logits, outputs.labels)
        return vmap(of_one_run)(runs, *(values.unflatten(0, (self._num_runs, -1)) for values in instances))


def _picks(evaluate: Callable[[], Evaluation], run: Tensor) -> Callable[[], Evaluation]:
    """Return what picks one run's figures out of an evaluation of all, which is made only if it is asked for."""

    def pick() -> Evaluation:
        everyone = evaluate()
        accuracy, loss, confidence = (
            figures.gather(0, run) for figures in (everyone.accuracy, everyone.loss, everyone.confidence)
        )
        return Evaluation(accuracy, loss, confidence)

    return pick
