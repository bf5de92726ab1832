"""Options from files: ``--config``, and the ready-made ones that ``--preset`` names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.config.choice import ANNEAL
from rlkd_env.errors import UsageError, unknown_name
from rlkd_env.runs.config import DETECTION_BATCH, DETECTION_RECIPE, DETECTION_SETS
from rlkd_env.utils.files import read_bytes, read_yaml
from rlkd_env.utils.options import renamed

PRESETS = Path(__file__).parent.parent / "presets"
"""One folder a command; in it YAML files that are laid over each other, and the methods that go with all of them."""
_LARGEST_FILE = 2**20
_METHODS = "methods"
_BORROWED = {"bench": "distill"}
"""Commands that take another one's presets beside their own."""
_AROUND = ("around", "around_options")
_REPLACED = {
    "agent": ("rule", "rule_options", "policy"),
    "policy": ("rule", "rule_options", *_AROUND),
    "rule": ("policy", *_AROUND),
}
"""Options that go when a layer above names another one to set the temperatures. An agent stays below a policy or a
rule, which come before it."""

_FOR_DETECTION: dict[str, dict[str, Any]] = {
    "distill": {**DETECTION_RECIPE, "batch_size": DETECTION_BATCH},
    "teacher": {"batch_size": DETECTION_BATCH},
}


def preset_names(command: str) -> list[str]:
    """Return all presets of a command, methods that go with another preset as ``.../METHOD``."""
    borrowed = preset_names(_BORROWED[command]) if command in _BORROWED else []
    root = PRESETS / command
    names = [path.relative_to(root).with_suffix("").as_posix() for path in sorted(root.rglob("*.yaml"))]
    methods = [name.removeprefix(f"{_METHODS}/") for name in names if name.startswith(f"{_METHODS}/")]
    others = [name for name in names if name.rpartition("/")[2] not in methods]
    return [*others, *(f".../{method}" for method in methods), *borrowed]


def read_layers(
    preset: Any, file: Any, command: str, valid: Iterable[str], dataset: str | None = None
) -> dict[str, Any]:
    """Return the options of a preset and, over them, of a config file; either may be None, or the file name the preset.

    Where a data set of detection is given, or named by them, what suits detectors lies below, as the usual settings are
    those of Digits.

    Raises:
        UsageError: if a file cannot be read, holds unknown options or another file's name, or a preset is unknown.
    """
    valid = list(valid)
    above = {} if file is None else read_config_file(Path(str(file)), valid)
    if above.pop("config", None) is not None:
        raise UsageError(f"the config {file} names another config: name that one on the command line")
    of_file = above.pop("preset", None)
    name = of_file if preset is None else preset
    options = above if name is None else laid_over(read_preset(str(name), command, valid), above)
    is_detection = (dataset or options.get("dataset")) in DETECTION_SETS
    return _FOR_DETECTION.get(command, {}) | options if is_detection else options


def read_preset(name: str, command: str, valid: Iterable[str]) -> dict[str, Any]:
    """Read the options of a preset.

    A name is a path such as ``cifar100/resnet56-resnet20/dkd``. Every step on it adds a file, which comes before those
    of earlier steps: ``cifar100.yaml``, ``cifar100/resnet56-resnet20.yaml``, ``methods/dkd.yaml``, and, where there is
    one, ``cifar100/resnet56-resnet20/dkd.yaml``. A preset that stands alone can be a later step as well: ``.../paper``.
    """
    options, valid, steps = dict[str, Any](), list(valid), name.split("/")
    is_borrowed = command in _BORROWED and not (PRESETS / command / f"{steps[0]}.yaml").is_file()
    root = PRESETS / (_BORROWED[command] if is_borrowed else command)
    for number, step in enumerate(steps, start=1):
        files = (root / f"{step}.yaml", root / _METHODS / f"{step}.yaml", root / f"{'/'.join(steps[:number])}.yaml")
        found = [file for file in dict.fromkeys(files) if file.is_file()]
        if not found or step in ("", ".", ".."):
            raise unknown_name("preset", name, preset_names(command))
        for file in found:
            options = laid_over(options, read_config_file(file, valid))
    return options


def read_config_file(path: Path, valid: Iterable[str]) -> dict[str, Any]:
    """Read options from a JSON or YAML file."""
    content = read_yaml(read_bytes(path, _LARGEST_FILE), f"the config {path}")
    if not isinstance(content, dict):
        raise UsageError(f"the config {path} must hold options by name")
    options = renamed({str(name).replace("-", "_"): value for name, value in content.items()})
    if "trust" in options:
        raise UsageError(f"the config {path} cannot say what is trusted: the command line alone does (--trust)")
    for name in options:
        if name not in valid:
            raise unknown_name(f"option in the config {path}:", name, valid)
    return options


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two layers; options that are themselves pairs of names and values are merged likewise.

    Who sets the temperatures is one choice: a layer that names a rule, a policy or an agent replaces the one below
    together with its arguments, and so does one that says None. Where the one below names nobody, its arguments are
    those of annealing.
    """
    below = dict(below)
    stays_annealing = above.get("rule") == ANNEAL and not any(below.get(choice) for choice in _REPLACED)
    for choice, others in _REPLACED.items():
        if choice in above:
            dropped = () if above[choice] is None else others
            if above[choice] != below.get(choice) and not stays_annealing:
                dropped = (*dropped, f"{choice}_options")
            below = {name: value for name, value in below.items() if name not in dropped}
    merged = below | above
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = below[name] | above[name]
    return merged
