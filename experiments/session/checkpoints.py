"""Checkpoints as files that are whole or not there, and the safe points of a run at which they are written."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch

from agents.recording.timing import PartTimer
from experiments.session.folder import CHECKPOINT_FOLDER
from experiments.signals import Stopped, StopRequest
from rlkd_env.errors import UsageError
from rlkd_env.runs.fingerprints import changed_parts
from rlkd_env.utils.files import read_bytes, reading, write_atomically
from rlkd_env.utils.options import renamed
from rlkd_env.utils.processes import started_processes
from rlkd_env.utils.randomness import load_random_state, random_state

_HEADER = b"rlkd checkpoint 3\n"
"""Begins every checkpoint; then comes the SHA-256 of the rest, because PyTorch does not notice flipped bits."""
LATEST = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"


class RunInterrupted(Stopped):
    """The user asked to stop, and the run stopped at a safe point with everything saved."""


class Stateful(Protocol):
    """A part of a run that a checkpoint holds; its state consists of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, independent of the part from now on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Continue from a state that :meth:`state_dict` returned."""
        ...


class SafePoints:
    """The moments between updates at which a run is consistent: it is saved there if that is due, and can stop.

    Without a folder nothing is saved, and Ctrl-C ends the run at once. A checkpoint holds the parts in the order in
    which they are restored; it is due after ``interval`` seconds, and refused by a run of other settings, or of another
    teacher or data by their ``fingerprints``.
    """

    def __init__(
        self,
        folder: Path | None,
        interval: float,
        settings: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        timer: PartTimer,
        fingerprints: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._folder, self._interval = folder, interval
        self._settings, self._parts, self._timer = settings, parts, timer
        self._fingerprints = fingerprints
        self._last = time.monotonic()
        self.stop = StopRequest()

    def reach(self) -> None:
        """Save a checkpoint if one is due, and stop if the user asked for it."""
        if self._folder is None:
            return
        if self.stop or time.monotonic() - self._last >= self._interval:
            self._last = time.monotonic()
            with self._timer.part("checkpoint"):
                states = {name: part.state_dict() for name, part in self._parts.items()}
                known = {"settings": self._settings, "fingerprints": self._fingerprints()}
                state = {**known, **states, "random": random_state()}
                save_checkpoint(self._folder / CHECKPOINT_FOLDER, state)
        if self.stop.signum is not None:
            raise RunInterrupted(self.stop.signum)

    def restore(self) -> bool:
        """Restore all parts from the latest checkpoint; return False if there is none."""
        state = None if self._folder is None else load_checkpoint(self._folder / CHECKPOINT_FOLDER)
        if state is None:
            return False
        assert self._folder is not None
        with reading(self._folder / CHECKPOINT_FOLDER):
            if renamed(state["settings"]) != self._settings:
                raise UsageError(f"the checkpoint in {self._folder} belongs to a run with other settings")
            check_fingerprints(state.get("fingerprints", {}), self._fingerprints(), self._folder)
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            load_random_state(state["random"])
        return True

    def listening(self) -> AbstractContextManager[None]:
        """Take the first signal within as a wish to stop at the next safe point; a second one ends the run at once.

        torchrun passes on what a terminal has sent to all processes already, and kills those that take too long.
        """
        return nullcontext() if self._folder is None else self.stop.listening(is_patient=started_processes() > 1)


def check_fingerprints(recorded: Mapping[str, str], found: Mapping[str, str], folder: Path | None) -> None:
    """Check that what a run is made from is what it was started with; checkpoints of before do not tell it.

    Raises:
        UsageError: if teacher or data have been exchanged.
    """
    if changed := changed_parts(recorded, found):
        raise UsageError(
            f"changed since the start of what is in {folder}: the {' and the '.join(changed)}; put back what was "
            "there, or start anew with --overwrite"
        )


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values as the latest checkpoint; the one before becomes the previous one."""
    content = io.BytesIO()
    torch.save(state, content)
    if (folder / LATEST).exists():
        os.replace(folder / LATEST, folder / PREVIOUS)
    payload = content.getvalue()
    write_atomically(folder / LATEST, _HEADER + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the latest checkpoint onto the CPU, or the previous one if a crash left only that; None if there is none."""
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
    """Say how far a run is; the training of a teacher counts only epochs."""
    run = state["run"]
    return f"update {run['step_count']}" if "step_count" in run else f"epoch {run['epoch']}"


def _read(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    if not content.startswith(_HEADER):
        raise UsageError(f"{path} is not a checkpoint of this version")
    digest_end = len(_HEADER) + hashlib.sha256().digest_size
    digest, payload = content[len(_HEADER) : digest_end], content[digest_end:]
    if hashlib.sha256(payload).digest() != digest:
        raise UsageError(f"{path} is damaged")
    with reading(path):
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        _moment(state)  # every checkpoint tells how far it is
    return state
