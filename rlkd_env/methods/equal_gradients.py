"""The same gradient norm for every instance: an ablation of how temperatures weigh instances against one another.

The gradient of T² · KL with respect to the student's logits is T · (p_student - p_teacher), so a temperature sets both
the direction and the size of an instance's gradient. With equal norms only the direction is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_SMALLEST_SHARE = 1e-6
"""Share of the mean norm below which a gradient stays as it is: its direction is rounding noise in float32."""


def with_equal_gradients(
    losses: dict[str, Tensor], logits: Sequence[Tensor], target_of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Scale each instance's losses so that the gradient of their sum by its logits has the target norm.

    The values of the losses ``(N,)`` do not change. The extra backward only goes from the losses to the logits, each
    ``(N, ...)``, so it costs little; without a gradient there it is left out. If a temperature is a function of the
    logits, its share of the gradient is included. ``target_of`` maps the norms ``(N,)`` to ``(N,)`` or ``(1,)``.
    """
    if not losses or not logits[0].requires_grad:
        return losses
    total = torch.stack(list(losses.values())).sum()
    gradients = torch.autograd.grad(total, logits, retain_graph=True, materialize_grads=True)
    norm = torch.cat([gradient.flatten(start_dim=1) for gradient in gradients], dim=1).norm(dim=-1)
    scale = scale_to(target_of(norm), norm)
    return {name: loss + (scale - 1.0) * (loss - loss.detach()) for name, loss in losses.items()}


def scale_to(target: Tensor, norm: Tensor) -> Tensor:
    """Return the factors ``(N,)`` that bring norms ``(N,)`` to a target, 1 where a norm is negligible."""
    return torch.where(norm < _SMALLEST_SHARE * target, 1.0, target / norm).nan_to_num(1.0)


def mean_norm(norm: Tensor) -> Tensor:
    """Return the mean ``(..., 1)`` of those norms ``(..., N)`` that are not negligible.

    Giving all of them this norm leaves the mean over all instances unchanged.
    """
    counts = norm >= _SMALLEST_SHARE * norm.mean(dim=-1, keepdim=True)
    return (norm * counts).sum(dim=-1, keepdim=True) / counts.sum(dim=-1, keepdim=True)
