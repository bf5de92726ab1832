"""Temperature rules: everything that sets temperatures without learning over many runs."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from agents.rules.base import Rule as Rule
    from agents.rules.by_run import PolicyByRun as PolicyByRun
    from agents.rules.create import (
        RULES as RULES,
        RuleSetting as RuleSetting,
        check_function as check_function,
        create_rule as create_rule,
        recreate_rule as recreate_rule,
    )
    from agents.rules.published import (
        CTKD as CTKD,
        DTKD as DTKD,
        LSKD as LSKD,
        TTM as TTM,
        WTTM as WTTM,
        NormKD as NormKD,
    )
    from agents.rules.schedules import (
        DTS as DTS,
        Anneal as Anneal,
        CosineSchedule as CosineSchedule,
        LinearSchedule as LinearSchedule,
    )
    from agents.rules.simple import (
        DifficultyRule as DifficultyRule,
        EntropyRule as EntropyRule,
        FixedTemperature as FixedTemperature,
        PublicAgent as PublicAgent,
        RandomTemperature as RandomTemperature,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
