"""How networks are computed: precision, memory format, capturing, and a frozen teacher's fewer operations."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.models.engine.engine import (
        Engine as Engine,
        choose_engine as choose_engine,
        has_fast_bfloat16 as has_fast_bfloat16,
        select_device as select_device,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
