"""``python -m experiments`` is ``rlkd``."""

from experiments.cli import entry_point

entry_point()
