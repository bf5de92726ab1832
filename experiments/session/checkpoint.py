"""Checkpoints of a run: written whole or not at all, the last good one kept, read without unpickling."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import write_atomically

_HEADER = b"rlkd checkpoint 2\n"
"""Begins every checkpoint; then comes the SHA-256 of the rest, as PyTorch does not notice flipped bits."""
LATEST = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values as the latest checkpoint; the one before becomes the previous."""
    content = io.BytesIO()
    torch.save(state, content)
    if (folder / LATEST).exists():
        os.replace(folder / LATEST, folder / PREVIOUS)
    payload = content.getvalue()
    write_atomically(folder / LATEST, _HEADER + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the latest checkpoint, on the CPU, or the previous one where a crash left only that.

    Returns:
        The state, or None where there is no checkpoint.

    Raises:
        UsageError: if the latest one is damaged or not a checkpoint of this program; says whether the previous is good.
    """
    latest, previous = folder / LATEST, folder / PREVIOUS
    if not latest.exists():
        return _read(previous) if previous.exists() else None
    try:
        return _read(latest)
    except UsageError as error:
        try:
            older = _read(previous)
        except UsageError:
            raise error from None
        raise UsageError(f"{error}; delete it to go on from the older {previous} ({_moment(older)})") from None


def _moment(state: dict[str, Any]) -> str:
    """Say how far a run is; a teacher's training counts epochs alone."""
    run = state["run"]
    return f"update {run['step_count']}" if "step_count" in run else f"epoch {run['epoch']}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    if not content.startswith(_HEADER):
        raise UsageError(f"{path} is not a checkpoint of this version")
    digest_end = len(_HEADER) + hashlib.sha256().digest_size
    digest, payload = content[len(_HEADER) : digest_end], content[digest_end:]
    if hashlib.sha256(payload).digest() != digest:
        raise UsageError(f"{path} is damaged")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
