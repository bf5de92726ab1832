"""Small students are computed by one thread."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.threads import choose_threads, operations, using_threads


def test_operations_are_those_of_the_products() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10))
    image = torch.zeros(1, 1, 8, 8)
    assert operations([network], image) == 2 * (64 * 4 * 9 + 256 * 10)  # a multiplication and an addition each


@pytest.mark.parametrize(("width", "chosen"), [(10, 1), (100_000, 2)])
def test_one_thread_computes_small_networks_and_all_compute_large_ones(
    width: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(64, width)), torch.zeros(128, 1, 8, 8)
    with using_threads(2):
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        choose_threads([network], images)
        assert torch.get_num_threads() == 2  # who has set the variable has chosen
        monkeypatch.delenv("OMP_NUM_THREADS")
        choose_threads([network], images)
        assert torch.get_num_threads() == chosen
