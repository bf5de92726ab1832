"""Temperature rules: everything that sets temperatures without learning over many runs."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from agents.rules.base import Rule as Rule
    from agents.rules.create import RULES as RULES, create_rule as create_rule, recreate_rule as recreate_rule
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
