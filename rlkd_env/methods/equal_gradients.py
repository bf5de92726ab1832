"""The same size of gradient for every instance: an ablation of how temperatures weigh instances against one another.

As the gradient of T² · KL by the student's logits is T · (p_student - p_teacher), a temperature sets not only which way
an instance pulls, but also how strongly. Equalised, the way is all that is left of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SMALLEST_SHARE = 1e-6
"""Of the mean norm: in float32 the direction of a smaller gradient is rounding noise, and it stays as it is."""


def with_equal_gradients(
    losses: dict[str, Tensor], logits: Tensor, target_of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Scale each instance's gradient so that the gradient of its losses' sum by its logits has the target norm.

    The values of the losses stay. The backward is that of the losses alone, down to the logits, so it costs little.
    What a temperature that follows from the logits adds to the gradient is part of it.

    Args:
        losses: terms by name, each ``(N,)``, functions of the logits.
        logits: ``(N, C)`` of the student; where they carry no gradient the losses are returned as they are.
        target_of: from the norms of the gradients ``(N,)`` to what they shall be, ``(N,)`` or ``(1,)``.

    Returns:
        The terms by name.
    """
    if not losses or not logits.requires_grad:
        return losses
    total = torch.stack(list(losses.values())).sum()
    (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
    norm = gradient.norm(dim=-1)
    scale = scale_to(target_of(norm), norm)
    return {name: loss + (scale - 1.0) * (loss - loss.detach()) for name, loss in losses.items()}


def scale_to(target: Tensor, norm: Tensor) -> Tensor:
    """Return what brings norms ``(N,)`` to a target ``(N,)`` or ``(1,)``; 1 where they are nothing beside it."""
    return torch.where(norm < _SMALLEST_SHARE * target, 1.0, target / norm).nan_to_num(1.0)


def mean_norm(norm: Tensor) -> Tensor:
    """Return the mean of norms ``(..., N)`` that are not next to nothing, ``(..., 1)``.

    Once all of those have it, the mean over all instances is what it was.
    """
    counts = norm >= _SMALLEST_SHARE * norm.mean(dim=-1, keepdim=True)
    return (norm * counts).sum(dim=-1, keepdim=True) / counts.sum(dim=-1, keepdim=True)
