"""Weights from safetensors files and from the ``.pth`` files that the field shares."""

from __future__ import annotations

import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.utils.files import check_memory, check_numbers, check_regular, read_tensors
from rlkd_env.utils.notices import tell

_PICKLES = (b"PK", b"\x80")
"""How PyTorch's files begin, the zipped ones and those of before 1.6."""
_NO_NETWORKS = ("optimizer", "optimizers", "opt", "optim", "scheduler", "lr_scheduler", "scaler", "callbacks", "loops")
"""The keys under which training scripts store what is no network."""
AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict")
"""The keys under which training scripts store the average of a network's weights over training."""
CONTAINERS = ("model", "state_dict", "model_state_dict", "net", "network", "weights", "module")
"""The keys under which they store the state dict itself, Lightning's among them."""
_MOST_CONTAINERS = 3
"""A state dict lies in so many of them at most."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "student.", "backbone.")
"""The prefixes that DataParallel, torch.compile and networks inside of others add to every name."""
NO_WEIGHTS = ("total_ops", "total_params", "n_averaged")
"""The last parts of names of numbers that tools leave among the weights: thop's counts, and torch's averaging."""
COUNTER = "num_batches_tracked"
"""A buffer of batch norms that files older than PyTorch 0.4.1 lack; evaluation does not use it."""


@dataclass(frozen=True)
class LoadReport:
    """The names that a file lacks, those that its network lacks, and those whose shapes differ."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything matched."""
        return not (self.missing or self.unexpected or self.wrong_shape)


def is_safetensors(path: Path) -> bool:
    """Return whether a file has, or by its name should have, the safetensors format, whose ninth byte is ``{``."""
    if not path.is_file():
        return path.suffix not in (".pth", ".pt")
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not start.startswith(_PICKLES))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or ``.pth`` file on the CPU; only tensors and plain values are unpickled.

    The state dict may be stored under one of :data:`AVERAGES`, which come first, or of :data:`CONTAINERS`, in one of
    these again; or under any other key, if it is the only one that holds tensors by name.

    Raises:
        UsageError: If the file is missing or damaged, or holds pickled code or no state dict.
    """
    if is_safetensors(path):
        return read_tensors(path)[0]
    check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_memory(sum(part.file_size for part in archive.infolist()), str(path))
        damaged = _damaged_part(path)
        # By its name PyTorch would take a file for one of another format.
        with torch.serialization.safe_globals(_plain_values()), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"pickled Python objects ({kind[1]})" if kind else "something other than tensors, numbers and text"
        raise UsageError(
            f"{path} holds more than weights: {what}, none of which was run. Save only the network's state_dict()"
        ) from None
    except UsageError:
        raise
    except Exception as error:  # PyTorch raises many kinds for a file that is damaged
        if "TorchScript" in str(error):
            raise UsageError(f"{path} is a TorchScript program: save the network's state_dict() instead") from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} is damaged or not a file of PyTorch weights: {reason}") from None
    if damaged is not None:
        raise UsageError(f"{path} is damaged: the checksum of its part {damaged} is wrong")
    tensors = _state_dict_in(content, path)
    if tensors is None:
        raise UsageError(
            f"{path} holds no network's weights: neither names with tensors nor these under {(*AVERAGES, *CONTAINERS)}"
        )
    return tensors


def _state_dict_in(content: Any, path: Path, levels: int = _MOST_CONTAINERS) -> dict[str, Tensor] | None:
    """Return the state dict in a file's content, wherever it is stored, or None if there is none."""
    if not isinstance(content, Mapping) or not content:
        return None
    if not any(isinstance(value, Mapping) for value in content.values()):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        return tensors if tensors and all(isinstance(name, str) for name in tensors) else None
    if not levels:  # a container may hold itself
        return None
    inside = partial(_state_dict_in, path=path, levels=levels - 1)
    found = {key: inside(content.get(key)) for key in (*AVERAGES, *CONTAINERS)}
    stored = [key for key, tensors in found.items() if tensors is not None]
    if not stored:
        others = {key: inside(value) for key, value in content.items() if key not in _NO_NETWORKS}
        stored = [key for key, tensors in others.items() if tensors is not None]
        if len(stored) > 1:
            raise UsageError(
                f"{path} holds the weights of several networks, under {', '.join(map(str, stored))}: save the one you "
                "mean in a file of its own"
            )
        found = others
    if not stored:
        return None
    if stored[0] in AVERAGES and len(stored) > 1:
        tell(f"{path} holds weights ({stored[-1]}) and their average ({stored[0]}), which is taken")
    return found[stored[0]]


def _plain_values() -> list[Any]:
    """Return what training scripts put beside weights, and what is no more than its values: options, paths, scores."""
    scalar = np.float64(0.0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    paths = [PosixPath] if isinstance(Path(), PosixPath) else []
    return [Namespace, *paths, np.dtype, *kinds, *((scalar, name) for name in names)]


def _damaged_part(path: Path) -> str | None:
    """Return the name of a part whose checksum is wrong, which PyTorch does not look at; None if there is none."""
    if not zipfile.is_zipfile(path):  # the format of before PyTorch 1.6 has no checksums
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def load_shared_weights(
    network: nn.Module, tensors: dict[str, Tensor], source: Path | str, strict: bool = True
) -> LoadReport:
    """Load weights that may come from other code into a network.

    Of :data:`PREFIXES` those are taken off, one after the other, that make the most names fit, and of
    :data:`NO_WEIGHTS` what the network lacks is passed over. A whole network under any other prefix is found too, if
    there is only one; what lies beside it, such as a loss or metrics, is left out with a line. If names differ then,
    the network's attribute ``weight_renames``, a mapping from regular expressions to replacements, translates them; if
    shapes differ, its method ``fit_weights`` may convert the tensors. Both are optional. :data:`COUNTER` may be
    missing, or too much.

    With ``strict`` everything must match, or nothing is loaded and a ``UsageError`` names the ``source``; otherwise
    whatever matches is loaded, and the mismatches are returned.

    Raises:
        UsageError: If something does not match although it must; nothing has been loaded then.
    """
    expected = network.state_dict()
    renames: Mapping[str, str] = getattr(network, "weight_renames", {})
    kept = {name: tensor for name, tensor in tensors.items() if name in expected or not name.endswith(NO_WEIGHTS)}
    forms = [_rename(form, expected, renames) for form in _without_prefixes(kept)]
    tensors = max(forms, key=lambda form: len(form.keys() & expected.keys()))  # the first of equally good ones
    if not _necessary(expected) <= tensors.keys():
        tensors = _below_a_prefix(kept, expected, renames, source) or tensors
    fit_weights: Callable[[dict[str, Tensor]], dict[str, Tensor]] = getattr(network, "fit_weights", dict)
    check_numbers(tensors, expected, source)
    tensors = fit_weights(tensors)
    shared = expected.keys() & tensors.keys()
    report = LoadReport(
        missing=tuple(name for name in expected if name not in shared and not name.endswith(COUNTER)),
        unexpected=tuple(name for name in tensors if name not in shared and not name.endswith(COUNTER)),
        wrong_shape=tuple(name for name in expected if name in shared and tensors[name].shape != expected[name].shape),
    )
    if strict and not report.complete:
        raise UsageError(_complaint(source, network, report, tensors, expected))
    fitting = {name: tensor for name, tensor in tensors.items() if name in shared and name not in report.wrong_shape}
    network.load_state_dict(fitting, strict=False)
    return report


def takes_colour(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the first convolution among a network's weights takes three channels."""
    return next((tensor.shape[1] == 3 for tensor in tensors.values() if tensor.ndim == 4), False)


def _without_prefixes(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield tensors under their names and, as long as all of these share a prefix, under those without it."""
    shared: str | None = ""
    while shared is not None:
        tensors = {name.removeprefix(shared): tensor for name, tensor in tensors.items()}
        yield tensors
        shared = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if not tensors:
            return


def _necessary(expected: Mapping[str, Tensor]) -> set[str]:
    return {name for name in expected if not name.endswith(COUNTER)}


def _below_a_prefix(
    tensors: dict[str, Tensor], expected: Mapping[str, Tensor], renames: Mapping[str, str], source: Path | str
) -> dict[str, Tensor] | None:
    """Return the whole network that lies under one prefix among other tensors, or under a first part of all names.

    Raises:
        UsageError: If there are several such networks.
    """
    parts = [name.split(".") for name in tensors]
    prefixes = {".".join(part[:length]) + "." for part in parts for length in range(1, len(part))}
    found = {}
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.count("."), prefix)):
        inner = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        inner = _rename(inner, expected, renames)
        if _necessary(expected) <= inner.keys():
            found[prefix] = inner
    if len(found) > 1:
        raise UsageError(
            f"{source} holds several such networks, under {', '.join(found)}: save the one you mean in its own file"
        )
    for prefix, inner in found.items():
        others = [name for name in tensors if not name.startswith(prefix)]
        if others:
            tell(f"{source}: the network under {prefix} is taken; left out: {_first(tuple(others))}")
        return inner
    headless = {name.partition(".")[2]: one for name, one in tensors.items()}  # such as backbone.conv1, head.fc
    headless = _rename(headless, expected, renames)
    return headless if len(headless) == len(tensors) and _necessary(expected) <= headless.keys() else None


def _rename(
    tensors: dict[str, Tensor], expected: Mapping[str, Tensor], renames: Mapping[str, str]
) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        new_name = name
        if name not in expected:
            for pattern, replacement in renames.items():
                new_name = re.sub(pattern, replacement, new_name)
        renamed[new_name] = tensor
    return renamed


def _complaint(
    source: Path | str,
    network: nn.Module,
    report: LoadReport,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> str:
    shapes = tuple(
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}" for name in report.wrong_shape
    )
    kinds = {"lacks": report.missing, "holds unknown": report.unexpected, "has the wrong shape for": shapes}
    parts = [f"{verb} {_first(names)}" for verb, names in kinds.items() if names]
    return (
        f"{source} does not fit the network {type(network).__name__}: it {'; '.join(parts)}. "
        "It holds another architecture, or one for other classes or images: name that one"
    )


def _first(names: tuple[str, ...]) -> str:
    few = ", ".join(names[:3])
    return few if len(names) <= 3 else f"{few}, … ({len(names)} names)"
