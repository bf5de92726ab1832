"""Options of ``rlkd distill`` for tests that are about an agent unless they say otherwise."""

from __future__ import annotations


def by_ppo(*options: str) -> tuple[str, ...]:
    """Return options of ``rlkd distill``, with PPO unless they name who sets the temperatures."""
    return options if {"--agent", "--policy", "--rule"} & {*options} else ("--agent", "ppo", *options)
