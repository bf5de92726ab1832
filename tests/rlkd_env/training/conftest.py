"""Captured and plain updates are compared number by number, so a GPU must compute them alike."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def exact_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a GPU compute in whole float32 numbers and in the same order every time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
