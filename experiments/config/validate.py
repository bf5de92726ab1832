"""Options of ``rlkd validate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from experiments.config.common import CommandConfig, TrustConfig
from rlkd_env.utils.options import NonNegative


@dataclass(frozen=True)
class ValidateConfig(CommandConfig):
    """Make a run again from its summary alone, and compare.

    Students and figures have to be the same, bit for bit, where processor, number of threads and versions are; anywhere
    else, and on a GPU, figures may differ by a tolerance.
    """

    summary: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUMMARY")]
    """The summary.json of a run, or its folder."""
    tolerance: NonNegative = 0.03
    """Greatest difference of an accuracy where the bits may differ."""
    out: str | None = None
    """Folder for the run that is made; None makes it in a temporary one."""
    progress: bool = True
    """Show a progress bar."""
    trust: TrustConfig = field(default_factory=TrustConfig)
