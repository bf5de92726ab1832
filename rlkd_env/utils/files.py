"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlkd_env.errors import UsageError

CHECKSUM = "sha256"
"""Name of the metadata's entry with the SHA-256 of a file's tensors and its other metadata."""
_ENTRY = "rlkd"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, so that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a run's folder is as readable as any other of the user's.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UsageError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors and text metadata as safetensors, atomically, with a checksum of both."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = {name: value for name, value in (metadata or {}).items() if name != CHECKSUM}
    # A single entry, because safetensors shuffles several, and the same content should give the same file.
    entry = json.dumps({**told, CHECKSUM: _checksum(content, told)})
    write_atomically(path, save(content, {_ENTRY: entry}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors (on the CPU) and metadata from a safetensors file.

    The metadata have the entry :data:`CHECKSUM` where :func:`write_tensors` has written the file; older ones lack it.

    Raises:
        UsageError: if the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if _ENTRY in metadata:
            metadata = dict(json.loads(metadata[_ENTRY]))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged or no safetensors file: {error}") from None
    told = {name: value for name, value in metadata.items() if name != CHECKSUM}
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(tensors, told):
        raise UsageError(f"{path} is damaged: its checksum is not that of its tensors")
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    return hashlib.sha256(f"{tensors_hash(tensors)} {json.dumps(metadata, sort_keys=True)}".encode()).hexdigest()


def load_weights(module: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a module."""
    expected = module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise UsageError(f"{path} lacks {name!r}: it holds another network")
        if name not in expected:
            raise UsageError(f"{path} holds {name!r}, which the network lacks: it holds another network")
        if tensors[name].shape != expected[name].shape:
            raise UsageError(
                f"{path}: {name!r} has shape {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
            )
    module.load_state_dict(tensors)


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, in hexadecimal digits: of their names, types, shapes and bits."""
    content = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
