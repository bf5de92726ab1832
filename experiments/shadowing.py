"""Whether ``import agents`` finds this project's package: the import name also belongs to openai-agents."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rlkd_env.errors import UsageError


def check_agents() -> None:
    """Make sure that the package ``agents`` is ours, without importing it.

    Raises:
        UsageError: if another package has taken its name.
    """
    spec = find_spec("agents")
    found = [] if spec is None else list(spec.submodule_search_locations or [str(spec.origin)])
    if any((Path(folder) / "rules" / "create.py").is_file() for folder in found):
        return
    where = f"in {found[0]} is another one, such as that of openai-agents" if found else "is missing"
    raise UsageError(f"the package 'agents' {where}: install rlkd into an environment of its own")
