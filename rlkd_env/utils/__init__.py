"""What every room uses: named parts, files, seeds, and draws that follow from a seed."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.utils.registry import Registry as Registry
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
