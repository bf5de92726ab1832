"""What all learned policies have in common: a frozen network, two files, and temperatures in any KD code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from agents.learned.files import read_policy, write_policy
from rlkd_env.instances.policy import PolicyModule

if TYPE_CHECKING:
    from typing_extensions import Self


class NetworkPolicy(PolicyModule):
    """A policy that acts, and does not learn; ``kind`` is the word by which its description tells it from others."""

    kind: ClassVar[str]

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = nn.Sequential(*layers)
        self.requires_grad_(False)
        self.eval()

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return what the policy is besides its network, as plain values."""

    @classmethod
    @abstractmethod
    def from_description(cls, layers: Sequence[nn.Module], description: dict[str, Any]) -> Self:
        """Make the policy that a description tells; a KeyError or TypeError means that it is damaged."""

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into a folder, each atomically."""
        write_policy(Path(folder), self.network, {"kind": self.kind, **self.description()})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved policy from its folder, or named by one of its two files; nothing is unpickled."""
        return read_policy(path, cls.kind, cls.from_description)
