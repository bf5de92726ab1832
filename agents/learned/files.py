"""Policies on disk: a description in JSON, weights as safetensors, and the layers that a description may name."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import load_weights, read_bytes, read_json, read_tensors, reading, write_json, write_tensors
from rlkd_env.utils.registry import Registry
from rlkd_env.utils.trust import is_named

POLICY_FORMAT = 1
WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"
_LARGEST_DESCRIPTION = 2**20
UNTOLD_KIND = "temperature"
"""The kind of policies whose description does not tell it."""


class Affine(nn.Module):
    """Scale and shift every feature of ``(N, num_features)``: a frozen normalisation."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.scale = nn.Buffer(torch.ones(num_features))
        self.shift = nn.Buffer(torch.zeros(num_features))
        self.num_features = num_features

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values * scale + shift``."""
        return values * self.scale + self.shift


_LAYER_ARGUMENTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    Affine: ("num_features",),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.ELU: ("alpha",),
    nn.LeakyReLU: ("negative_slope",),
    **dict.fromkeys((nn.Tanh, nn.ReLU, nn.SiLU, nn.GELU), ()),
}
LAYERS: Registry[Callable[..., nn.Module]] = Registry("layer", {kind.__name__: kind for kind in _LAYER_ARGUMENTS})
"""The layers a saved policy may have, by the name in its description."""


class StoredPolicy(Protocol):
    """What is written of a policy, beside its description."""

    def stored(self) -> nn.Module:
        """Return all networks of the policy as one module."""


PolicyT = TypeVar("PolicyT", bound=StoredPolicy)


def write_policy(folder: Path, policy: StoredPolicy, description: dict[str, Any]) -> None:
    """Write a policy's networks and its description, which tells all the rest, into two files, each atomically."""
    write_tensors(folder / WEIGHTS_FILE, policy.stored().state_dict())
    content = {
        "format": POLICY_FORMAT,
        **description,
        "weights_sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
        "versions": {"torch": torch.__version__},
    }
    write_json(folder / DESCRIPTION_FILE, content)


def read_policy(path: Path | str, kind: str, create: Callable[[dict[str, Any]], PolicyT]) -> PolicyT:
    """Read a policy of one kind; ``create`` makes it of its description, with tensors that are filled later."""
    folder = policy_folder(path)
    description, weights = read_description(folder), folder / WEIGHTS_FILE
    if description["kind"] != kind:
        raise UsageError(f"{folder} holds a policy of the kind {description['kind']!r}, not {kind!r}")
    tensors, _ = read_tensors(weights)
    if hashlib.sha256(read_bytes(weights)).hexdigest() != description.get("weights_sha256"):
        raise UsageError(f"{weights} is damaged or does not belong to {folder / DESCRIPTION_FILE}")
    with reading(folder / DESCRIPTION_FILE):
        policy = create(description)
    load_weights(policy.stored(), tensors, weights)
    return policy


def policy_folder(path: Path | str) -> Path:
    """Return the folder of a policy that is named by it or by one of its two files."""
    path = Path(path)
    return path.parent if path.name in (WEIGHTS_FILE, DESCRIPTION_FILE) else path


def read_description(folder: Path) -> dict[str, Any]:
    """Read what a policy is, with its ``"kind"``.

    A part from outside, named as ``package.module:name``, must be one that the user has named, or its module must have
    been imported already, as a file alone must never run code.
    """
    description = read_json(folder / DESCRIPTION_FILE, dict[str, Any], _LARGEST_DESCRIPTION)
    if description.get("format") != POLICY_FORMAT:
        raise UsageError(f"{folder / DESCRIPTION_FILE} is not a policy of format {POLICY_FORMAT}")
    for name in _texts(description):
        if ":" in name and not is_named(name) and name.partition(":")[0] not in sys.modules:
            raise UsageError(
                f"{folder} holds a policy with {name!r}, somebody's own code, which a file alone never runs: "
                f"import that module first, if you trust it, or on the command line add --trust {name}"
            )
    return {"kind": UNTOLD_KIND, **description}


def describe_layer(layer: nn.Module) -> dict[str, Any]:
    """Return one of :data:`LAYERS` as plain values.

    Raises:
        UsageError: if it is none of them.
    """
    if type(layer).__name__ not in LAYERS:
        raise UsageError(f"a policy with the layer {layer} cannot be saved")
    return {
        "type": type(layer).__name__,
        "arguments": {name: getattr(layer, name) for name in _LAYER_ARGUMENTS.get(type(layer), ())},
    }


def recreate_layer(description: Mapping[str, Any]) -> nn.Module:
    """Return a layer that :func:`describe_layer` described, with tensors that are filled later."""
    return LAYERS[description["type"]](**description["arguments"])


def _texts(value: Any) -> Iterator[str]:
    """Return the texts of nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
