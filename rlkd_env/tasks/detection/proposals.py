"""The region proposals that a two-stage student and its teacher classify, from the student's maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import box_iou

from rlkd_env.data.boxes import Boxes, Regions
from rlkd_env.models.engine import Engine


@dataclass(frozen=True)
class Proposals:
    """The output of a detector's region proposal network for B images.

    Of each image it has the corners ``(m, 4)``, the most likely first, and the probability ``(m,)`` of an object in
    them. The loss is a scalar with gradient; None if no real boxes were given.
    """

    corners: list[Tensor]
    objectness: list[Tensor]
    loss: Tensor | None


@dataclass(frozen=True)
class SampledRegions:
    """Equally many proposals per image and the targets of a detector's head for them, N altogether.

    The labels ``(N,)`` are the classes of the matched real boxes, 0 for the background. The targets ``(N, 4)`` are
    those boxes relative to the proposals, encoded by the head's box coder; meaningless for the background.
    """

    regions: Regions
    labels: Tensor
    targets: Tensor


def propose(
    detector: FasterRCNN, engine: Engine, images: Tensor, maps: dict[str, Tensor], boxes: Boxes | None
) -> Proposals:
    """Run the region proposal network as torchvision's own forward does, but keep the objectness.

    Given the real boxes it returns the loss too, whose anchors are drawn from torch's global generator.
    """
    network, levels = detector.rpn, list(maps.values())
    sizes = [(images.shape[-2], images.shape[-1])] * len(images)
    with engine.autocast():
        scores, deltas = network.head(levels)
    scores, deltas = [score.float() for score in scores], [delta.float() for delta in deltas]
    anchors = network.anchor_generator(ImageList(images, sizes), levels)
    per_level = [score[0].numel() for score in scores]
    flat_scores, flat_deltas = concat_box_prediction_layers(scores, deltas)
    decoded = network.box_coder.decode(flat_deltas.detach(), anchors).view(len(images), -1, 4)
    corners, objectness = network.filter_proposals(decoded, flat_scores, sizes, per_level)
    if boxes is None:
        return Proposals(corners, objectness, None)
    targets = [{"boxes": real, "labels": classes} for real, classes in boxes.trainable()]
    labels, matched = network.assign_targets_to_anchors(anchors, targets)
    losses = network.compute_loss(flat_scores, flat_deltas, labels, network.box_coder.encode(matched, anchors))
    return Proposals(corners, objectness, sum(losses, start=torch.zeros((), device=images.device)))


def sample_regions(
    detector: FasterRCNN, proposals: Proposals, boxes: Boxes, count: int, image_size: tuple[int, int]
) -> SampledRegions:
    """Draw equally many proposals per image, with the share of objects that the detector's head asks for.

    Real boxes are proposals too. If an image has too few proposals, they are drawn more than once; an image without any
    contributes itself as a whole. Draws are from torch's global generator.
    """
    head = detector.roi_heads
    drawn: list[tuple[Tensor, ...]] = []
    for corners, objectness, (real, classes) in zip(
        proposals.corners, proposals.objectness, boxes.trainable(), strict=True
    ):
        candidates, scores = torch.cat([corners, real]), torch.cat([objectness, objectness.new_ones(len(real))])
        if len(candidates) == 0:
            height, width = image_size
            candidates, scores = corners.new_tensor([[0.0, 0.0, width, height]]), scores.new_zeros(1)
        if len(real) == 0:
            overlap, matched = scores.new_zeros(len(scores)), candidates
            labels = torch.zeros(len(candidates), dtype=torch.int64, device=candidates.device)
        else:
            overlaps = box_iou(real, candidates)
            match = head.proposal_matcher(overlaps)
            overlap, nearest = overlaps.amax(dim=0), match.clamp(min=0)
            labels = torch.where(match >= 0, classes[nearest], 0)
            matched = real[nearest]
        chosen = _balanced(labels, count, head.fg_bg_sampler.positive_fraction)
        drawn.append(tuple(values[chosen] for values in (candidates, scores, overlap, labels, matched)))
    corners, objectness, overlap, labels, matched = (torch.cat(values) for values in zip(*drawn, strict=True))
    images = torch.arange(len(boxes), device=labels.device).repeat_interleave(count)
    targets = head.box_coder.encode([matched], [corners])[0]
    return SampledRegions(Regions(corners, images, objectness, overlap, boxes), labels, targets)


def _balanced(labels: Tensor, count: int, positive_fraction: float) -> Tensor:
    """Draw ``(count,)`` positions, at most that fraction of them objects; positions repeat only if they run out."""
    objects, others = ((labels > 0).nonzero().squeeze(-1), (labels == 0).nonzero().squeeze(-1))
    num_objects = min(int(count * positive_fraction), len(objects))
    chosen = torch.cat([_shuffled(objects)[:num_objects], _shuffled(others)[: count - num_objects]])
    if len(chosen) == 0:  # only real boxes, and too few for the fraction to include one
        chosen = _shuffled(objects)[:count]
    repeats = -(-count // len(chosen))
    return chosen.repeat(repeats)[:count]


def _shuffled(positions: Tensor) -> Tensor:
    return positions[torch.randperm(len(positions), device=positions.device)]
