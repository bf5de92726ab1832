"""How stacked students are measured."""

from __future__ import annotations

import pytest
import torch

from rlkd_env.data.images import MemoryImages
from rlkd_env.models import create_model
from rlkd_env.models.engine import Engine
from rlkd_env.models.stacking import StackedNetworks
from rlkd_env.runs.parallel import students
from rlkd_env.tasks import Classification


@pytest.mark.parametrize("name", ["mlp6", "cnn4"])
def test_every_student_is_measured_as_it_would_be_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images = MemoryImages(torch.rand(23, 1, 8, 8), torch.arange(23) % 10)
    networks = [create_model(name, 10, (1, 8, 8)) for _ in range(3)]
    engine = Engine(torch.device("cpu"), channels_last=True)
    alone = [Classification(engine).evaluate(network, images) for network in networks]
    before = [buffer.clone() for network in networks for buffer in network.buffers()]
    stacked = StackedNetworks(networks)
    for rows in (4096, 15, 1):  # of all students: all images at once, five at a time, and one
        monkeypatch.setattr(students, "_ROWS", rows)
        monkeypatch.setattr(students, "_ROWS_OF_MAPS", rows)
        found = students.evaluate_students(stacked, engine, images)
        for figure in ("accuracy", "loss", "confidence"):
            torch.testing.assert_close(getattr(found, figure), torch.stack([getattr(one, figure) for one in alone]))
    assert stacked.training
    after = [buffer[0] for buffer in stacked.weights.buffers()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=False))
