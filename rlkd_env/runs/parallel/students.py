"""How good K stacked students are."""

from __future__ import annotations

import torch

from rlkd_env.data import ImageSet
from rlkd_env.instances.outputs import log_softmax
from rlkd_env.models.engine import Engine
from rlkd_env.models.stacking import StackedNetworks
from rlkd_env.tasks import Evaluation

_ROWS = 16384
_ROWS_OF_MAPS = 4096
"""Images of all students that are forwarded at once; feature maps need far more memory than hidden units."""


@torch.no_grad()
def evaluate_students(students: StackedNetworks, engine: Engine, images: ImageSet) -> Evaluation:
    """Measure every student on the same images: accuracy, mean cross-entropy and confidence, ``(K,)`` each.

    The engine says in which precision the students are forwarded.
    """
    students.eval()
    rows = _ROWS if students.is_fully_connected else _ROWS_OF_MAPS
    chunks = images.chunks(max(1, rows // students.count))
    with engine.autocast():
        logits = torch.cat([students.forward_shared(engine.images(chunk)) for chunk in chunks], dim=1).float()
    students.train()
    labels = images.labels.expand(students.count, -1)
    accuracy = (logits.argmax(dim=-1) == labels).float().mean(dim=1)
    log_probabilities = log_softmax(logits.flatten(0, 1)).unflatten(0, logits.shape[:2])
    of_labels = log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return Evaluation(accuracy, -of_labels.mean(dim=1), of_labels.exp().mean(dim=1))
