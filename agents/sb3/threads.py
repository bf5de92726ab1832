"""With how many threads the host computes while an agent learns beside networks on a GPU."""

from __future__ import annotations

from types import TracebackType

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

_UPDATE_THREADS = 4


class HostThreads(BaseCallback):
    """Keeps PyTorch to one thread on the host while an agent acts, and to four while it learns from a rollout.

    Beside networks on a GPU the host multiplies only the agent's small matrices. Threads that have fallen asleep during
    a KD step take longer to wake up than such a product takes on one thread. Where the networks are on the CPU, nothing
    is changed. ``with HostThreads(device) as threads: agent.learn(timesteps, callback=threads)`` restores the threads
    at the end.

    Args:
        device: where the networks are.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._is_active = device.type == "cuda"
        self._before = 1

    def __enter__(self) -> HostThreads:
        self._before = torch.get_num_threads()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        torch.set_num_threads(self._before)

    def _on_rollout_start(self) -> None:
        if self._is_active:
            torch.set_num_threads(1)

    def _on_rollout_end(self) -> None:
        if self._is_active and isinstance(self.model, OnPolicyAlgorithm):  # others learn from a few hundred rows
            torch.set_num_threads(min(_UPDATE_THREADS, self._before))

    def _on_step(self) -> bool:
        return True
