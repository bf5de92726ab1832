"""Outputs of a batch, and what rules are made for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.rules.base import Rule
from agents.rules.create import RuleSetting, create_rule
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import TemperatureRange
from rlkd_env.runs.run import DistillationRun

SETTING = RuleSetting(TemperatureRange(0.5, 8.0), 3.0, teacher_deviation=2.0, num_classes=10, seed=7)


def outputs(count: int = 50, seed: int = 0, dtype: torch.dtype = torch.float64, **fields: Any) -> InstanceOutputs:
    random = np.random.default_rng(seed)
    student, teacher = random.normal(1.0, 2.0, (count, 10)), random.normal(2.0, 5.0, (count, 10))
    labels = torch.from_numpy(random.integers(0, 10, count))
    given = {"progress": 0.3, "epoch": 4.25, "step": 17, **fields}
    return InstanceOutputs(torch.tensor(student, dtype=dtype), torch.tensor(teacher, dtype=dtype), labels, **given)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of one instance."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def own_rule(run: DistillationRun, name: str, **options: Any) -> DistillationRun:
    setting = RuleSetting(run.temperature_range, 4.0, run.teacher_deviation, run.splits.num_classes)

    def create(seed: int) -> Rule:
        return create_rule(name, options, RuleSetting(**{**vars(setting), "seed": seed}))

    run.create_policy = create
    return run
