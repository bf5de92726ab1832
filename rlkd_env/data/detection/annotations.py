"""Annotations of the objects in image files, in the files' own pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from rlkd_env.data.boxes import Boxes

_SMALLEST_SIDE = 1e-3
"""The smallest side of a box in pixels of a network's image; smaller ones could vanish when mirrored."""


@dataclass(frozen=True, eq=False)
class Objects:
    """A table of K objects: image's position ``(K,)``, corners ``(K, 4)``, class from 1, crowd flag and area ``(K,)``.

    A crowd need not be found. Corners (left, top, right, bottom) and areas are in pixels of the image's file.
    """

    images: Tensor
    corners: Tensor
    classes: Tensor
    is_crowd: Tensor
    areas: Tensor

    @classmethod
    def of_rows(cls, rows: list[tuple[int, tuple[float, float, float, float], int, bool, float]]) -> Objects:
        """Make a table of rows with the position of an object's image, its corners, class, crowd flag and area."""
        images, corners, classes, is_crowd, areas = zip(*rows, strict=True) if rows else ((),) * 5
        return cls(
            torch.tensor(images, dtype=torch.int64),
            torch.tensor(corners, dtype=torch.float32).view(-1, 4),
            torch.tensor(classes, dtype=torch.int64),
            torch.tensor(is_crowd, dtype=torch.bool),
            torch.tensor(areas, dtype=torch.float32),
        )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Tensor) -> Objects:
        """Return the objects at positions of the table, or where a mask ``(K,)`` is true."""
        return Objects(*(getattr(self, field.name)[positions] for field in fields(self)))

    def inside(self, sizes: Tensor, height: int, width: int) -> Objects:
        """Clip boxes to their images ``(n, 2)`` and drop those that are empty at the networks' height and width."""
        limits = sizes[self.images].repeat(1, 2).to(self.corners.dtype)
        corners = torch.minimum(self.corners.clamp(min=0.0), limits)
        sides = (corners[:, 2:] - corners[:, :2]) * scales(sizes, height, width)[self.images]
        return replace(self, corners=corners).take((sides >= _SMALLEST_SIDE).all(dim=1))


@dataclass(frozen=True, eq=False)
class Annotations:
    """The objects of n image files, padded to M objects per file, in pixels of the files.

    Widths and heights are ``(n, 2)``, int64. By the areas ``(n, M)`` evaluations call objects small or large.
    """

    sizes: Tensor
    boxes: Boxes
    areas: Tensor
    class_names: tuple[str, ...]

    @classmethod
    def of_objects(cls, sizes: Tensor, objects: Objects, class_names: tuple[str, ...]) -> Annotations:
        """Assign the objects, in their order, to the files of the given sizes ``(n, 2)``."""
        objects = objects.take(objects.images.argsort(stable=True))
        counts = objects.images.bincount(minlength=len(sizes))
        places = torch.arange(len(objects)) - (counts.cumsum(dim=0) - counts)[objects.images]
        shape = (len(sizes), int(counts.max()))

        def padded(values: Tensor) -> Tensor:
            return values.new_zeros(*shape, *values.shape[1:]).index_put((objects.images, places), values)

        boxes = Boxes(padded(objects.corners), padded(objects.classes), padded(objects.is_crowd))
        return cls(sizes, boxes, padded(objects.areas), class_names)

    def __len__(self) -> int:
        return len(self.sizes)

    def take(self, positions: Tensor) -> Annotations:
        """Return the annotations of the files at positions ``(m,)``."""
        positions = positions.cpu()
        return Annotations(self.sizes[positions], self.boxes.take(positions), self.areas[positions], self.class_names)

    def fitted(self, height: int, width: int) -> Boxes:
        """Return the boxes in pixels of images of the given size, into which the files are fitted."""
        factors = scales(self.sizes, height, width).repeat(1, 2).unsqueeze(1)
        fitted = fitted_sizes(self.sizes, height, width).float()
        has_borders = bool((fitted < fitted.new_tensor([width, height])).any())
        shown = torch.cat([torch.zeros_like(fitted), fitted], dim=1) if has_borders else None
        return Boxes(self.boxes.corners * factors, self.boxes.classes, self.boxes.is_crowd, shown)

    def as_coco(self) -> dict[str, Any]:
        """Return the dictionary that COCO's evaluation reads, with images and classes numbered from 1."""
        is_there = self.boxes.classes > 0
        corners = self.boxes.corners[is_there].double()
        columns = {
            "image_id": is_there.nonzero()[:, 0] + 1,
            "category_id": self.boxes.classes[is_there],
            "bbox": torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1),
            "area": self.areas[is_there],
            "iscrowd": self.boxes.is_crowd[is_there].long(),
        }
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        sizes = enumerate(self.sizes.tolist(), start=1)
        described = (dict(zip(columns, row, strict=True)) for row in rows)
        return {
            "images": [{"id": number, "width": width, "height": height} for number, (width, height) in sizes],
            "annotations": [{"id": number, **row} for number, row in enumerate(described, start=1)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(self.class_names, start=1)],
        }


def fitted_sizes(sizes: Tensor, height: int, width: int) -> Tensor:
    """Return width and height ``(n, 2)`` of files scaled to fit, which keep their aspect ratio up to rounding."""
    room = torch.tensor([width, height], dtype=torch.float64)
    scale = (room / sizes).min(dim=1, keepdim=True).values
    return (sizes * scale).round().clamp(min=1.0).long()


def scales(sizes: Tensor, height: int, width: int) -> Tensor:
    """Return the factors ``(n, 2)`` from pixels of each file to pixels of a network's image, for x and y."""
    return (fitted_sizes(sizes, height, width) / sizes.double()).float()
