"""A single process that takes part in a distributed run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkd_env.runs.distributed.processes import Processes


class Recording(Processes):
    """Keeps what the first process tells the others."""

    told: list[Any]

    def tell(self, message: Tensor) -> Tensor:
        self.told.append(message.clone())
        return super().tell(message)

    def tell_object(self, value: Any = None) -> Any:
        self.told.append(super().tell_object(value))
        return self.told[-1]

    def tell_state(self, state: dict[str, Any] | None = None) -> dict[str, Any]:
        before = len(self.told)
        super().tell_state(state)
        del self.told[before:]
        self.told.append(state)
        return state or {}
