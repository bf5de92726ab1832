"""What a network shows besides its logits, and how that is found in a network that does not say."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from rlkd_env.models.taps.features import (
        Features as Features,
        FeatureShapes as FeatureShapes,
        Taps as Taps,
        feature_shapes as feature_shapes,
        forward_with_features as forward_with_features,
        set_taps as set_taps,
        taps_of as taps_of,
    )
    from rlkd_env.models.taps.find_taps import add_taps as add_taps
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
