"""Files that are written whole or not at all, and read with distrust: sizes first, and every value's type."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import tempfile
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from rlkd_env.errors import UsageError

CHECKSUM = "sha256"
"""Name of the metadata's entry with the SHA-256 of a file's tensors and its other metadata."""
_ENTRY = "rlkd"
if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_JSON = 64 * 2**20
"""Bytes of the largest JSON file of ours: the history of a run of 100,000 epochs."""
_LARGEST_NUMBER = 1e100
_DEEPEST, _MOST_VALUES = 20, 100_000
"""Levels of YAML, and values on each of them, at most."""
_WORDS = {dict: "names and values", list: "a list", float: "a number", int: "a whole number", str: "text"}
_LEFTOVER = re.compile(r"\..+\.(json|safetensors|pt|csv|png|html)\.[a-z0-9_]{8}")
"""The names of temporary files of :func:`write_atomically`."""


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
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        told = f"{path} cannot be written, and is as it was: {error.strerror or error}"
        raise OSError(error.errno or errno.EIO, told) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process has left in a folder, and in those within, into which nobody else writes now."""
    for path in folder.rglob(".*") if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def check_regular(path: Path, limit: int | None = None) -> None:
    """Check that a path is that of a regular file, and no larger than a number of bytes.

    Raises:
        UsageError: if the file is missing, too large, or a folder, a device or something else that is no file.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is {'a folder' if stat.S_ISDIR(found.st_mode) else 'no regular file'}")
    if limit is not None and found.st_size > limit:
        raise UsageError(f"{path} is too large to be such a file: {found.st_size} bytes, at most {limit} are expected")


def check_memory(size: int, what: str) -> None:
    """Check that so many bytes fit into this machine's memory, before they are asked for.

    Raises:
        UsageError: if they do not.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**40
    if size > memory:
        raise UsageError(f"{what} takes {size / 2**30:.1f} GiB, more than this machine's memory")


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a regular file of at most so many bytes; without a limit it must fit into memory.

    Raises:
        UsageError: if there is no such file, or it cannot be read.
    """
    check_regular(path, limit)
    check_memory(path.stat().st_size, str(path))
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def read_text(path: Path, limit: int) -> str:
    """Read a regular file of at most so many bytes as UTF-8, with or without a byte order mark.

    Raises:
        UsageError: if there is no such file, or it is no text.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8: {error}") from None


def expanded(path: str | Path) -> Path:
    """Return a path whose first part may be ``~``; the home of somebody who is unknown is left as it is written."""
    return Path(os.path.expanduser(path))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever is raised by what a file holds into one error.

    Raises:
        UsageError: if something within raises anything.
    """
    try:
        yield
    except UsageError:
        raise
    except MemoryError:
        raise UsageError(f"{path} holds more than fits into memory") from None
    except Exception as error:  # libraries raise many kinds for a file that is damaged
        lines = str(error).splitlines() or [""]
        raise UsageError(f"{path} is damaged: {type(error).__name__} {lines[0]}".rstrip()) from error


def read_json(path: Path, kind: Any = Any, limit: int = LARGEST_JSON) -> Any:
    """Read JSON whose values are of a type, such as a ``TypedDict``; ``limit`` is the largest size in bytes.

    Raises:
        UsageError: if the file is missing, too large, not JSON, or one of its values is of another type.
    """
    content = read_bytes(path, limit)
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None
    check_type(found, kind, str(path))
    return found


def read_yaml(text: str | bytes, where: str) -> Any:
    """Read YAML or JSON of options; ``where`` says what it is.

    Raises:
        UsageError: if it is neither, or is nested or repeats itself by references as no options do.
    """
    import yaml  # which most readers do not need

    try:
        content = _read_json(text)
        content = yaml.safe_load(text) if content is None else content
    except Exception as error:  # of too many brackets, of a date that there is not, ...
        raise UsageError(f"{where} is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    parts, level = [content], 0
    while parts:
        level += 1
        if level > _DEEPEST or len(parts) > _MOST_VALUES:
            raise UsageError(f"{where} holds no options by name: it is nested too deeply, or repeats itself")
        parts = [
            inner
            for part in parts
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
    return content


def _read_json(text: str | bytes) -> Any:
    """Return what JSON says, or None if the text is none; as YAML it would have no numbers such as 1e-05.

    Raises:
        RecursionError: if it is nested too deeply, which YAML's reader would take long to find out.
    """
    try:
        return json.loads(text)
    except ValueError:
        return None


def check_type(value: Any, kind: Any, where: str) -> None:
    """Check that a value of JSON is of a type: plain, a choice, a list, a mapping, a union or a ``TypedDict`` of such.

    Numbers are finite, or not a number, which stands for one that is not known. Keys that a ``TypedDict`` does not name
    are passed over.

    Raises:
        UsageError: if it is not; ``where`` says what it is in.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        _check_is(value, dict, where)
        for name in sorted(kind.__required_keys__ - value.keys()):
            raise UsageError(f"{where} is damaged: it lacks {name}")
        for name, hint in get_type_hints(kind).items():
            if name in value:
                check_type(value[name], hint, f"{where}: {name}")
    elif origin is Literal:
        if value not in arguments:
            raise UsageError(f"{where} is damaged: {value!r} is none of {', '.join(map(repr, arguments))}")
    elif origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        if value is not None or len(members) == len(arguments):
            check_type(value, members[0], where)
    elif origin is list:
        _check_is(value, list, where)
        for position, inner in enumerate(value):
            check_type(inner, arguments[0], f"{where}[{position}]")
    elif origin is dict:
        _check_is(value, dict, where)
        for name, inner in value.items():
            check_type(inner, arguments[1], f"{where}: {name}")
    else:
        _check_is(value, kind, where)


def _check_is(value: Any, kind: type, where: str) -> None:
    is_one = isinstance(value, (int, float) if kind is float else kind) and (
        kind is bool or not isinstance(value, bool)
    )
    if not is_one or (isinstance(value, int | float) and (abs(value) > _LARGEST_NUMBER or math.isinf(value))):
        told = repr(value) if len(repr(value)) <= 40 else f"{type(value).__name__}"
        raise UsageError(f"{where} is damaged: {told} is not {_WORDS.get(kind, kind.__name__)}")


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors and text metadata as safetensors, atomically, with a checksum of both."""
    from safetensors.torch import save  # which takes PyTorch's time to import

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
    from safetensors import safe_open

    check_regular(path)
    check_memory(path.stat().st_size, str(path))
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if _ENTRY in metadata:
            metadata = dict(json.loads(metadata[_ENTRY]))
    except Exception as error:  # of the library, or of a name or a type that PyTorch does not know
        raise UsageError(f"{path} is damaged or no safetensors file: {error}") from None
    told = {name: value for name, value in metadata.items() if name != CHECKSUM}
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(tensors, told):
        raise UsageError(f"{path} is damaged: its checksum is not that of its tensors")
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    return hashlib.sha256(f"{tensors_hash(tensors)} {json.dumps(metadata, sort_keys=True)}".encode()).hexdigest()


def check_numbers(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path | str) -> None:
    """Check that what is about to be loaded are plain numbers, and real ones where a network has such.

    Raises:
        UsageError: if a tensor is sparse, quantised, complex, without content, or of whole numbers in place of others.
    """
    import torch

    for name in expected.keys() & tensors.keys():
        tensor = tensors[name]
        is_plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta or tensor.is_complex())
        if not is_plain or (expected[name].is_floating_point() and not tensor.is_floating_point()):
            raise UsageError(
                f"{path} holds {name!r} as {tensor.dtype} ({tensor.layout}, {tensor.device.type}), which are not the "
                "plain numbers of a network's weights"
            )


def load_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a module.

    Raises:
        UsageError: if names, shapes or types differ; nothing has been loaded then.
    """
    expected = module.state_dict()
    check_shapes(tensors, expected, path)
    check_numbers(tensors, expected, path)
    module.load_state_dict(tensors)


def check_shapes(tensors: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Check that the tensors of a file have the names and shapes that a network's state dict has.

    Raises:
        UsageError: if they have not, with the first that differs.
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise UsageError(f"{path} lacks {name!r}: it holds another network")
        if name not in expected:
            raise UsageError(f"{path} holds {name!r}, which the network lacks: it holds another network")
        if tensors[name].shape != expected[name].shape:
            raise UsageError(
                f"{path}: {name!r} has shape {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
            )


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, in hexadecimal digits: of their names, types, shapes and bits."""
    import torch

    content = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
