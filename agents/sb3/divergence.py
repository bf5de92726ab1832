"""Whether an agent's networks still hold numbers that it can act by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch.distributions import Distribution
from torch.nn.utils import get_total_norm

from rlkd_env.errors import AgentDiverged, UsageError

_LARGEST_PARAMETER = 1e5
"""Usable networks of agents have parameters below 100; beyond this their actions overflow sooner or later."""
_NO_NUMBERS = re.compile(r"^Expected (parameter|value argument)|is not a number$")
"""What PyTorch's distributions and our wrappers say of an agent's outputs that are no numbers."""


def check_agent(agent: BaseAlgorithm) -> None:
    """Check the parameters of an agent's networks.

    Raises:
        AgentDiverged: if one is not finite, or absurdly large.
    """
    with torch.no_grad():
        largest = float(get_total_norm(agent.policy.parameters(), norm_type=float("inf")))
    if not largest <= _LARGEST_PARAMETER:
        raise AgentDiverged(f"its largest parameter is {largest:g}")


@contextmanager
def noticing_divergence(agent: BaseAlgorithm) -> Iterator[None]:
    """Check an agent that learns within, and turn what it raises where its outputs are no numbers into one error.

    PyTorch's distributions check nothing meanwhile, which takes them a tenth of an agent's time: actions that are no
    numbers are refused by the environments' wrappers, and networks that hold none are found at the end.

    Raises:
        AgentDiverged: if the agent's networks hold no usable numbers any more.
    """
    checks = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        if _NO_NUMBERS.search(str(error)):
            raise AgentDiverged("its outputs are no numbers") from error
        raise
    finally:
        Distribution.set_default_validate_args(checks)
    check_agent(agent)
