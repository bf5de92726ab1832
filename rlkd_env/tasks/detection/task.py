"""Two-stage object detection, whose instances are region proposals that teacher and student classify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from rlkd_env.data import Batch, Boxes, ImageSet, Splits
from rlkd_env.data.boxes import RegionBoxes
from rlkd_env.data.detection.image_sets import DetectionSet
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.models.detectors.distributions import DistributionPredictor, distribution_focal_loss
from rlkd_env.models.engine import Engine
from rlkd_env.models.taps.features import Features
from rlkd_env.tasks.base import Evaluation, Task
from rlkd_env.tasks.detection.average_precision import Detections, average_precision
from rlkd_env.tasks.detection.proposals import SampledRegions, propose, sample_regions
from rlkd_env.utils.randomness import seeded

_EVALUATION_BATCH = 16
_MOST_TEACHER_IMAGES = 128
"""The number of images whose proposals determine the std of a teacher's logits; more would only take longer."""
_POOL = "pool"
"""torchvision's name of the coarsest map, which is the one before it, subsampled."""
_BINS_WEIGHT = 0.25
"""Weight of the distribution focal loss beside a head's other loss of boxes, as published (arXiv 2006.04388)."""


@dataclass(frozen=True)
class _Found:
    """What a detector's head says about n regions.

    Attributes:
        logits: ``(n, C + 1)``.
        deltas: ``(n, 4 C + 4)`` boxes of every class relative to the regions.
        pooled: ``(n, D)`` the regions' features.
        edges: ``(n, 4, bins + 1)`` logits of the bins that edges may lie in, or None if the head gives numbers.
    """

    logits: Tensor
    deltas: Tensor
    pooled: Tensor
    edges: Tensor | None = None

    def boxes_of(self, labels: Tensor) -> Tensor:
        """Return the boxes ``(n, 4)`` of one class ``(n,)`` of every region."""
        rows = torch.arange(len(labels), device=labels.device)
        return self.deltas.unflatten(-1, (-1, 4))[rows, labels]


class Detection(Task):
    """Detection of boxes and their classes by torchvision's Faster R-CNN with a feature pyramid, measured by COCO's AP.

    The student proposes regions, to which training adds the real boxes, and the heads of both networks classify the
    same P proposals of every image. The student's own loss is torchvision's: cross-entropy and box regression of the
    proposals, objectness and box regression of the anchors. It is distributed over the instances so that their mean is
    torchvision's sum. Where a head gives distributions over bins, the mean over the edges of their own loss is added.

    Raises:
        UsageError: If there are no proposals.
    """

    metric = "AP"
    follows_logits = False

    def __init__(self, engine: Engine | None = None, proposals: int = 64) -> None:
        super().__init__(engine)
        if proposals < 1:
            raise UsageError(f"every image needs at least 1 proposal, not {proposals}")
        self.instances_per_image = proposals

    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        batch: Batch,
        with_features: bool = False,
        known: tuple[Tensor, Features] | None = None,  # noqa: ARG002 (regions are drawn anew at every step)
    ) -> InstanceOutputs:
        """Forward B images through both networks, once each; the instances are P proposals an image, B · P = N."""
        images, boxes, student = self.engine.images(batch.images), _boxes_of(batch), _detector(student)
        maps = self._maps(student, images)
        sampled, found, further_loss = self._train_heads(student, images, maps, boxes)
        with torch.no_grad():
            teacher_maps = self._maps(_detector(teacher), images)
            per_image = list(sampled.regions.corners.split(self.instances_per_image))
            of_teacher = self._classify(_detector(teacher), images, teacher_maps, per_image)
        by_instance = sampled.regions.images
        of_features: dict[str, Any] = {}
        if with_features:
            of_features = {
                "images": images,
                "student_features": _features(maps, found.pooled),
                "teacher_features": _features(teacher_maps, of_teacher.pooled),
            }
        return InstanceOutputs(
            found.logits,
            of_teacher.logits,
            sampled.labels,
            indices=batch.indices[by_instance],
            label_share=None if batch.label_share is None else batch.label_share[by_instance],
            partner_labels=None if batch.label_share is None else sampled.labels,
            further_loss=further_loss,
            regions=sampled.regions,
            boxes=RegionBoxes(
                found.boxes_of(sampled.labels),
                of_teacher.boxes_of(sampled.labels),
                sampled.targets,
                found.edges,
                of_teacher.edges,
            ),
            **of_features,
        )

    def training_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the sum of torchvision's four losses."""
        images, detector = self.engine.images(batch.images), _detector(network)
        maps = self._maps(detector, images)
        sampled, found, further = self._train_heads(detector, images, maps, _boxes_of(batch))
        return F.cross_entropy(found.logits, sampled.labels) + further.mean()

    @torch.no_grad()
    def teacher_logits(self, teacher: nn.Module, images: ImageSet, limit: int) -> Tensor:
        """Return the logits ``(n, C + 1)`` of the teacher's own proposals, P per image."""
        exact = self._exact
        with _evaluating(teacher, images.labels.device) as detector:
            parts = [
                exact._train_heads(detector, chunk, exact._maps(detector, chunk), boxes)[1].logits
                for chunk, boxes in self._chunks(images, min(limit, _MOST_TEACHER_IMAGES))
            ]
        return torch.cat(parts)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return the AP metrics, which are computed on the host, and the losses on as many proposals as in training."""
        exact = self._exact
        found, metrics = [], []
        with _evaluating(network, images.labels.device) as detector:
            for chunk, boxes in self._chunks(images):
                maps = exact._maps(detector, chunk)
                found += exact._detect(detector, chunk, maps)
                metrics.append(exact._measure(detector, chunk, maps, boxes))
        precision = average_precision(cast(DetectionSet, images).ground_truth(), _in_files(images, found))
        _, loss, confidence = _mean(metrics)
        return Evaluation(torch.tensor(precision.get("AP", 0.0), device=loss.device), loss, confidence, precision)

    @torch.no_grad()
    def evaluate_probe(self, network: nn.Module, images: ImageSet) -> Evaluation:
        """Return the losses and, as accuracy, the share of correctly classified proposals, with fixed draws."""
        exact = self._exact
        with _evaluating(network, images.labels.device) as detector:
            metrics = [
                exact._measure(detector, chunk, exact._maps(detector, chunk), boxes)
                for chunk, boxes in self._chunks(images)
            ]
        return Evaluation(*_mean(metrics))

    @torch.no_grad()
    def detect(self, network: nn.Module, images: ImageSet) -> list[Detections]:
        """Return a detector's detections, in pixels of the images that networks see."""
        exact = self._exact
        with _evaluating(network, images.labels.device) as detector:
            return [
                found
                for chunk, _ in self._chunks(images)
                for found in exact._detect(detector, chunk, exact._maps(detector, chunk))
            ]

    @cached_property
    def _exact(self) -> Detection:
        """The same task in float32, for evaluations."""
        if self.engine == self.engine.exact:
            return self
        return Detection(self.engine.exact, self.instances_per_image)

    def num_logits(self, splits: Splits) -> int:
        """Return the number of classes plus one for the background."""
        return splits.num_classes + 1

    def _maps(self, detector: FasterRCNN, images: Tensor) -> dict[str, Tensor]:
        with self.engine.autocast():
            maps = detector.backbone(images)
        return {name: level.float() for name, level in maps.items()}

    def _train_heads(
        self, detector: FasterRCNN, images: Tensor, maps: dict[str, Tensor], boxes: Boxes
    ) -> tuple[SampledRegions, _Found, Tensor]:
        """Propose regions, draw some of them, classify those, and return the losses ``(N,)`` of the rest with them."""
        proposals = propose(detector, self.engine, images, maps, boxes)
        image_size = (images.shape[-2], images.shape[-1])
        sampled = sample_regions(detector, proposals, boxes, self.instances_per_image, image_size)
        per_image = list(sampled.regions.corners.split(self.instances_per_image))
        found = self._classify(detector, images, maps, per_image)
        further = _box_loss(found, sampled)
        return sampled, found, further + (0.0 if proposals.loss is None else proposals.loss)

    def _classify(self, detector: FasterRCNN, images: Tensor, maps: dict[str, Tensor], corners: list[Tensor]) -> _Found:
        """Ask a detector's head about regions of its maps."""
        head = detector.roi_heads
        regions = head.box_roi_pool(maps, corners, [(images.shape[-2], images.shape[-1])] * len(images))
        predictor = head.box_predictor
        with self.engine.autocast():
            pooled = head.box_head(regions)
            if not isinstance(predictor, DistributionPredictor):
                logits, deltas = predictor(pooled)
                return _Found(logits.float(), deltas.float(), pooled.float())
            logits, edges = predictor.cls_score(pooled), predictor.edges(pooled)
        edges = edges.float()
        return _Found(logits.float(), predictor.deltas(edges), pooled.float(), edges)

    def _detect(self, detector: FasterRCNN, images: Tensor, maps: dict[str, Tensor]) -> list[Detections]:
        corners = propose(detector, self.engine, images, maps, None).corners
        head = self._classify(detector, images, maps, corners)
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        found = detector.roi_heads.postprocess_detections(head.logits, head.deltas, corners, sizes)
        return [Detections(*image) for image in zip(found[0], found[1], found[2], strict=True)]

    def _measure(
        self, detector: FasterRCNN, images: Tensor, maps: dict[str, Tensor], boxes: Boxes
    ) -> tuple[int, Tensor]:
        """Return the number of images, and the means of correctness, loss and confidence ``(3,)``."""
        sampled, found, further = self._train_heads(detector, images, maps, boxes)
        losses = F.cross_entropy(found.logits, sampled.labels, reduction="none")
        is_correct = (found.logits.argmax(dim=-1) == sampled.labels).float()
        return len(images), torch.stack([is_correct.mean(), (losses + further).mean(), (-losses).exp().mean()])

    def _chunks(self, images: ImageSet, limit: int | None = None) -> Iterator[tuple[Tensor, Boxes]]:
        positions = torch.arange(min(len(images), limit or len(images)))
        chunks = images.chunks(_EVALUATION_BATCH, limit)
        for chunk, where in zip(chunks, positions.split(_EVALUATION_BATCH), strict=True):
            boxes = images.take_boxes(where)
            if boxes is None:
                raise ValueError("these images have no boxes")
            yield self.engine.images(chunk), boxes


@contextmanager
def _evaluating(network: nn.Module, device: torch.device) -> Iterator[FasterRCNN]:
    """Put a detector into evaluation mode within the context, where draws are always the same."""
    detector, was_training = _detector(network), network.training
    detector.eval()
    try:
        with seeded(0, device):
            yield detector
    finally:
        detector.train(was_training)


def _detector(network: nn.Module) -> FasterRCNN:
    return cast(FasterRCNN, network)


def _boxes_of(batch: Batch) -> Boxes:
    if batch.boxes is None:
        raise ValueError("detection needs batches with boxes")
    return batch.boxes


def _features(maps: dict[str, Tensor], pooled: Tensor) -> Features:
    return Features(tuple(level for name, level in maps.items() if name != _POOL), (), pooled)


def _box_loss(found: _Found, sampled: SampledRegions) -> Tensor:
    """Return torchvision's box regression loss ``(N,)``, 0 for the background; of bins, their loss is added."""
    own, is_object = found.boxes_of(sampled.labels), sampled.labels > 0
    targets = torch.where(is_object.unsqueeze(-1), sampled.targets, own.detach())  # the background's may be huge
    loss = F.smooth_l1_loss(own, targets, beta=1 / 9, reduction="none").sum(dim=-1)
    if found.edges is not None:
        loss = loss + _BINS_WEIGHT * distribution_focal_loss(found.edges, targets).mean(dim=-1)
    return loss * is_object


def _mean(metrics: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean metrics of chunks, weighted by their numbers of images."""
    total = sum(count for count, _ in metrics)
    first, second, third = torch.stack([count / total * values for count, values in metrics]).sum(dim=0).unbind()
    return first, second, third


def _in_files(images: ImageSet, found: list[Detections]) -> list[Detections]:
    """Convert detections to pixels of the images' files."""
    of_files = cast(DetectionSet, images).in_files
    return [
        Detections(of_files(position, image.corners), image.scores, image.classes)
        for position, image in enumerate(found)
    ]
