"""Every method that distils images, with options that suit small runs."""

from __future__ import annotations

from typing import Any

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("kd", {}),
    ("dkd", {"warmup_epochs": 2}),
    ("cross_entropy", {}),
    ("pkt", {}),
    ("sp", {}),
    ("vid", {}),
    ("adain", {}),
    ("srrl", {}),
    ("crd", {"negatives": 8}),
]
