"""K runs divided among processes."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkd_env.data.streamed import StreamedImages
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.runs.loop import UpdateResult
from rlkd_env.runs.parallel.base import ParallelRuns
from rlkd_env.runs.parallel.serial import SerialRuns
from rlkd_env.runs.run import STATE_VERSION, DistillationRun
from rlkd_env.tasks import Evaluation
from rlkd_env.utils.processes import end_with_parent, leave_signals_to_parent, starting_children

_END = b""


class WorkerRuns(ParallelRuns):
    """The runs divided among processes, each of which computes its runs one after another on one thread.

    The processes are forked, so any student and data set will do; they end with :meth:`close` or with this process.
    """

    mode = "workers"

    def __init__(self, template: DistillationRun, num_runs: int, num_workers: int | None = None) -> None:
        super().__init__(template, num_runs)
        reason = why_no_workers(template)
        if reason is not None:
            raise UsageError(f"the runs cannot have worker processes: {reason}; use the mode stacked or serial")
        count = min(num_workers or available_cores(), num_runs)
        train = template.splits.train  # which a daemon must read itself, as it may have no processes of its own
        template = template.sibling(replace(train, workers=0) if isinstance(train, StreamedImages) else None)
        if template.splits.train.is_random:
            template.teacher_cache_bytes //= count
        bounds = [worker * num_runs // count for worker in range(count + 1)]
        self._parts = [slice(*ends) for ends in itertools.pairwise(bounds)]
        self._owner = os.getpid()
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("fork")
        for part in self._parts:
            ours, theirs = context.Pipe()
            arguments = (theirs, template, part.stop - part.start, [*self._connections, ours])
            process = context.Process(target=_work, args=arguments, daemon=True)
            with starting_children():
                process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def close(self) -> None:
        """End the worker processes."""
        connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(OSError):  # it may have ended already
                connection.send_bytes(_END)
            connection.close()
        for process in self._processes:
            process.join()

    def __del__(self) -> None:
        if getattr(self, "_connections", None) and self._owner == os.getpid():  # not in a process forked since
            self.close()

    def weights(self) -> list[dict[str, Tensor]]:
        """Return the students' state dicts, in the runs' order, independent of the runs from now on."""
        return [weights for weights_of_part in self._ask_all("weights") for weights in weights_of_part]

    def evaluate_validation(self) -> Evaluation:
        """Measure all students on the validation images, each in the process that trains it."""
        parts = self._ask_all("evaluate_validation")
        accuracy, loss, confidence = (torch.from_numpy(np.concatenate(figures)) for figures in zip(*parts, strict=True))
        return Evaluation(accuracy, loss, confidence)

    def _start(self) -> None:
        self._join_outputs(self._ask("start", [self.seeds[part] for part in self._parts]))

    def _update(self, temperature: Temperature, is_rewarded: bool) -> UpdateResult:
        rows = [slice(part.start * self.batch_size, part.stop * self.batch_size) for part in self._parts]
        replies = self._ask("step", [(_pack(temperature.rows(chosen).detach()), is_rewarded) for chosen in rows])
        outputs = self.outputs
        self._join_outputs([reply["outputs"] for reply in replies])

        def joined(values: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(values))

        return UpdateResult(
            reward=joined([reply["reward"] for reply in replies]),
            diverged=joined([reply["diverged"] for reply in replies]),
            metrics={name: joined([reply["metrics"][name] for reply in replies]) for name in replies[0]["metrics"]},
            outputs=outputs,
        )

    def _run_states(self) -> list[dict[str, Any]]:
        return [state for states in self._ask_all("save") for state in states]

    def _restore(self, states: list[dict[str, Any]]) -> None:
        self._join_outputs(self._ask("restore", [states[part] for part in self._parts]))

    def _join_outputs(self, parts: list[dict[str, Any]]) -> None:
        self.outputs = InstanceOutputs.join([InstanceOutputs(**_unpack(part)) for part in parts])

    def _ask_all(self, command: str) -> list[Any]:
        """Let all workers do something that needs no argument."""
        return self._ask(command, [None] * len(self._parts))

    def _ask(self, command: str, arguments: Sequence[Any]) -> list[Any]:
        """Let all workers do something at once, and wait for the answers of all."""
        if not self._connections:
            raise RuntimeError("the runs are closed")
        try:
            for connection, argument in zip(self._connections, arguments, strict=True):
                connection.send_bytes(pickle.dumps((command, argument)))
            answers = [pickle.loads(connection.recv_bytes()) for connection in self._connections]
        except (EOFError, OSError) as error:
            self.close()
            raise RuntimeError("a worker process of the parallel runs is gone") from error
        for failure, _ in answers:
            if failure is not None:
                self.close()
                raise RuntimeError(f"a worker process of the parallel runs failed:\n{failure}")
        return [answer for _, answer in answers]


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def why_no_workers(template: DistillationRun) -> str | None:
    """Return why runs of these ingredients cannot be computed in worker processes, or None if they can."""
    if template.device.type != "cpu":
        return f"the runs are on {template.device}, which processes would have to share"
    if not sys.platform.startswith("linux"):
        return "processes can safely be forked on Linux only"
    if multiprocessing.current_process().daemon:
        return "this process is itself a worker, which may have none of its own"
    if torch.accelerator.is_available():
        return "autograd on a machine with an accelerator does not survive a fork"
    return None


class _Worker:
    """The commands that a worker process answers; each takes one argument and returns plain values and arrays."""

    def __init__(self, template: DistillationRun, num_runs: int) -> None:
        self._runs = SerialRuns(template, num_runs)

    def start(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Begin with fresh students."""
        self._runs.reset(seeds)
        return _pack(self._runs.outputs)

    def step(self, asked: tuple[dict[str, Any], bool]) -> dict[str, Any]:
        """Update all students with temperatures, for whose rewards somebody asks or nobody does."""
        temperature, is_rewarded = asked
        result = self._runs.step(Temperature(**_unpack(temperature)), is_rewarded)
        return {
            "outputs": _pack(self._runs.outputs),
            "reward": result.reward.numpy(),
            "diverged": result.diverged.numpy(),
            "metrics": {name: values.numpy() for name, values in result.metrics.items()},
        }

    def save(self, _: None) -> list[dict[str, Any]]:
        """Return the runs' states."""
        return self._runs.state_dict()["runs"]

    def weights(self, _: None) -> list[dict[str, Tensor]]:
        """Return the students' state dicts."""
        return self._runs.weights()

    def evaluate_validation(self, _: None) -> tuple[np.ndarray, ...]:
        """Return the accuracies, losses and confidences on the validation images."""
        found = self._runs.evaluate_validation()
        return found.accuracy.numpy(), found.loss.numpy(), found.confidence.numpy()

    def restore(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """Continue from the states of runs."""
        diverged = torch.zeros(len(states), dtype=torch.bool)  # the parent knows
        self._runs.load_state_dict({"version": STATE_VERSION, "runs": states, "diverged": diverged})
        return _pack(self._runs.outputs)


def _work(
    connection: Connection, template: DistillationRun, num_runs: int, inherited: list[Connection]
) -> None:  # pragma: no cover (runs in a process of its own)
    """Answer commands until the other end says that it is over or is gone."""
    for of_parent in inherited:
        of_parent.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    leave_signals_to_parent()
    end_with_parent()
    torch.set_num_threads(1)  # the workers share the cores, and OpenMP's threads do not survive a fork
    worker = _Worker(template, num_runs)
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        if message == _END:
            return
        command, argument = pickle.loads(message)
        answer: tuple[str | None, Any]
        try:
            answer = (None, getattr(worker, command)(argument))
        except Exception:  # the user's network, method or data may raise anything
            answer = (traceback.format_exc(), None)
        connection.send_bytes(pickle.dumps(answer))


def _pack(sent: InstanceOutputs | Temperature) -> dict[str, Any]:
    """Return what is sent as plain values and arrays, which are faster to send than tensors."""
    values = {field.name: getattr(sent, field.name) for field in fields(sent)}
    return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}


def _unpack(packed: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in packed.items()}
