"""What all learned policies have in common: a frozen network, two files, and temperatures in any KD code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from agents.learned.files import describe_layer, read_policy, recreate_layer, write_policy
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
    def settings(self) -> dict[str, Any]:
        """Return what the policy is besides its network, as plain values."""

    @classmethod
    @abstractmethod
    def of_settings(cls, layers: Sequence[nn.Module], settings: dict[str, Any]) -> Self:
        """Make the policy of its layers and :meth:`settings`; a KeyError or TypeError means that they are damaged."""

    def description(self) -> dict[str, Any]:
        """Return all but the weights as plain values.

        Raises:
            UsageError: if the policy has a layer or part that cannot be made again of plain values.
        """
        return {"kind": self.kind, **self.settings(), "layers": [describe_layer(layer) for layer in self.network]}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Self:
        """Make the policy that a :meth:`description` tells, with other weights."""
        return cls.of_settings([recreate_layer(layer) for layer in description["layers"]], description)

    def stored(self) -> nn.Module:
        """Return all that has weights as one module, whose names a file keeps."""
        return self.network

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into a folder, each atomically."""
        write_policy(Path(folder), self, self.description())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved policy from its folder, or named by one of its two files; nothing is unpickled."""
        return read_policy(path, cls.kind, cls.from_description)
