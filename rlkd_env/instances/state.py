"""An instance's state: the chosen features, stacked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlkd_env.errors import UsageError
from rlkd_env.instances.features import FEATURES, NO_REGIONS, Feature
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.utils.choices import PAPER_FEATURES


class InstanceState:
    """The chosen features, stacked into an observation.

    Args:
        features: names in :data:`~rlkd_env.instances.features.FEATURES`, ``package.module:name``, or
            :class:`~rlkd_env.instances.features.Feature` objects, each at most once.

    Raises:
        UsageError: if a name is unknown or repeated, or none is given.
    """

    def __init__(self, features: Sequence[str | Feature] = PAPER_FEATURES) -> None:
        if not features:
            raise UsageError("the state needs at least one feature")
        self.names = tuple(FEATURES.name_of(chosen) for chosen in features)
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise UsageError(f"feature {sorted(repeated)[0]!r} is named twice")
        self._features = [FEATURES[name] for name in self.names]
        self.low = torch.tensor([chosen.low for chosen in self._features])
        self.high = torch.tensor([chosen.high for chosen in self._features])

    def __reduce__(self) -> tuple[type[InstanceState], tuple[tuple[str, ...]]]:
        """Be copied by the features' names; those of the processes that share a run hold the same functions."""
        return InstanceState, (self.names,)

    def check(self, has_regions: bool) -> None:
        """Raise a UsageError if a feature is one of regions, and the instances are whole images.

        Raises:
            UsageError: if a feature is one of regions, and the instances are whole images.
        """
        if not has_regions and any(chosen.needs_regions for chosen in self._features):
            raise UsageError(NO_REGIONS)

    def __call__(self, outputs: InstanceOutputs) -> Tensor:
        """Return the state ``(N, d)`` in float32, finite and within the bounds whatever the logits hold."""
        columns = [chosen.compute(outputs).float() for chosen in self._features]
        state = torch.stack(columns, dim=-1)
        if self.low.device != state.device:
            self.low, self.high = self.low.to(state.device), self.high.to(state.device)
        return state.nan_to_num_().clamp_(self.low, self.high)
