"""All methods for images, with options under which they are computed in a blink."""

from __future__ import annotations

from typing import Any

from rlkd_env.methods import METHODS as KNOWN

_OPTIONS: dict[str, dict[str, Any]] = {"dkd": {"warmup_epochs": 2}, "crd": {"negatives": 8}}
METHODS: list[tuple[str, dict[str, Any]]] = [
    (name, _OPTIONS.get(name, {})) for name, method in KNOWN.items() if "classification" in method.tasks
]
WITHOUT_WAITING = [(name, options) for name, options in METHODS if not KNOWN[name].waits_for_device]
"""Those of them whose losses wait for no device."""
CAPTURED = [(name, options) for name, options in WITHOUT_WAITING if not KNOWN[name].is_stochastic]
"""Those of them that are captured as CUDA graphs."""
