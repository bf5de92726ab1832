"""The figure of a policy: its temperatures over a run, and against the difficulty of the images."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.report.style import COLOURS, set_log_ticks, settings
from rlkd_env.instances.temperature import Policy
from rlkd_env.runs.hooks import RunHook, StepResult
from rlkd_env.runs.run import DistillationRun
from rlkd_env.utils.files import write_atomically

_MOMENTS = {0.1: "after a tenth of the run", 0.5: "half-way", 1.0: "at the end"}
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NEAREST = 1e-3  # distance from 0 and 1 at which the logit scale ends
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)


class _Record(RunHook):
    """Records quantiles of every update's temperatures, and the instances of the epochs that end at the moments."""

    def __init__(self, run: DistillationRun) -> None:
        self.quantiles: list[np.ndarray] = []
        self.instances: dict[float, list[np.ndarray]] = {moment: [] for moment in _MOMENTS}
        self._ends = {moment: max(run.steps_per_epoch, round(moment * run.total_steps)) for moment in _MOMENTS}

    def on_step(self, run: DistillationRun, result: StepResult) -> None:
        """Record an update."""
        temperature, outputs = result.temperature.student.float().cpu(), result.outputs
        self.quantiles.append(temperature.quantile(torch.tensor(_QUANTILES)).numpy())
        for moment, end in self._ends.items():
            if end - run.steps_per_epoch < run.step_count <= end:
                difficulty = 1.0 - outputs.true_class(outputs.student_probabilities)
                confidence = outputs.true_class(outputs.teacher_probabilities)
                self.instances[moment].append(torch.stack([difficulty.cpu(), temperature, confidence.cpu()]).numpy())


def draw_policy(policy: Policy, run: DistillationRun, seed: int, path: Path) -> None:
    """Reset a run to a seed, make it with a policy, and write a figure of its temperatures as a PNG."""
    record = _Record(run)
    run.reset(seed)
    run.add_hook(record)
    run.advance(policy)
    run.remove_hook(record)
    with matplotlib.rc_context({**settings(), "font.size": 10, "axes.titlesize": 10}):
        content = _drawn(record)
    write_atomically(path, content)


def _drawn(record: _Record) -> bytes:
    """Return the figure as a PNG."""
    figure = Figure(figsize=(13.0, 3.4), dpi=110, layout="constrained")
    over_time, *moments = figure.subplots(1, 1 + len(_MOMENTS), sharey=True)
    steps, quantiles = np.arange(len(record.quantiles)), np.array(record.quantiles).T
    for (low, high), alpha in (((0, 4), 0.2), ((1, 3), 0.4)):
        over_time.fill_between(steps, quantiles[low], quantiles[high], color=COLOURS["blue"], alpha=alpha, linewidth=0)
    over_time.plot(steps, quantiles[2], color=COLOURS["blue"])
    over_time.set(xlabel="update", ylabel="temperature", title="median, 50 % and 90 % of a batch", yscale="log")
    set_log_ticks(over_time.yaxis)
    for axes, (moment, title) in zip(moments, _MOMENTS.items(), strict=True):
        difficulty, temperature, confidence = np.concatenate([np.empty((3, 0)), *record.instances[moment]], axis=1)
        axes.set(xscale="logit", xlabel="difficulty, 1 − student's p", title=title)
        inside = difficulty.clip(_NEAREST, 1.0 - _NEAREST)
        points = axes.scatter(inside, temperature, c=confidence, s=8, cmap="viridis", vmin=0.0, vmax=1.0)
        axes.set_xlim(_NEAREST * 0.7, 1.0 - _NEAREST * 0.7)
        axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.colorbar(points, ax=moments[-1], label="teacher's p of the true class")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
