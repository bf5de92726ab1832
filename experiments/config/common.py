"""What the options of all commands have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import tyro

from rlkd_env.utils.options import FORMER_DEFAULTS, LATER_OPTIONS, RENAMED_OPTIONS, Options, renamed

PresetName = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
FileName = Annotated[str | None, tyro.conf.arg(metavar="FILE")]
_NOT_SETTINGS = ["out", "overwrite", "resume", "config", "preset", "checkpoint_seconds"]
_NOT_SETTINGS += [
    "progress",
    "tensorboard",
    "download",
    "workers",
    "only",
    "together",
    "trust",
    "force",
    "keep_epoch",
    "track",
    "dry_run",
]
"""Options that do not change what a run computes; they are neither stored nor compared on --resume."""


@dataclass(frozen=True)
class TrustConfig(Options):
    """Whose code may run."""

    trust: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH_OR_FILE ...")] = ()
    """Module paths (package.module:name) that may be imported although only a file names them, such as the config.json
    or summary.json of a run, or files all of whose module paths may."""


class CommandConfig(Options):
    """Options of a command, in groups; ``presets`` names the command whose presets it takes, if it reads files."""

    presets: ClassVar[str] = ""

    @property
    def trusted(self) -> tuple[str, ...]:
        """What the option ``--trust`` names; nothing where a command has none."""
        return tuple(self.as_keywords().get("trust", ()))

    def settings(self) -> dict[str, Any]:
        """Return the options that determine the results; what ``config.json`` holds."""
        return without_bookkeeping(self.as_keywords())


def without_bookkeeping(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that determine results; the others are where things go and how they are shown."""
    plain = json.loads(json.dumps(renamed(options)))
    return {name: value for name, value in plain.items() if name not in _NOT_SETTINGS}


def config_hash(settings: Mapping[str, Any]) -> str:
    """Return a short name of settings: the first 16 hexadecimal digits of their SHA-256, whatever their order.

    Options count under the first name and with the first default that they had, and those that came later only if they
    change something, so that settings of before keep their hash.
    """
    first = {new: old for old, new in RENAMED_OPTIONS.items()}
    old = {name: value for name, value in settings.items() if name not in LATER_OPTIONS or value != LATER_OPTIONS[name]}
    content = {
        first.get(name, name): FORMER_DEFAULTS.get(name) if value is None else value for name, value in old.items()
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
