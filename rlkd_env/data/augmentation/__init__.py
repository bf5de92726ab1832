"""How training images are varied: random views, random changes of single images, and mixes of two."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.data.augmentation.changes import ImageChanges as ImageChanges, check_changes as check_changes
    from rlkd_env.data.augmentation.mixing import Mixing as Mixing
    from rlkd_env.data.augmentation.preprocessing import PLAIN as PLAIN, Preprocessing as Preprocessing
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
