"""What is known of the objects in image files, in the files' own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlkd_env.data.boxes import Boxes

_SMALLEST_SIDE = 1e-3
"""Of a box in pixels of a network's image; less is no area, and would be none at all once it is mirrored."""


@dataclass(frozen=True, eq=False)
class Objects:
    """A table of K objects in n images.

    Attributes:
        images: ``(K,)`` position of each object's image.
        corners: ``(K, 4)`` left, top, right and bottom in pixels of the image's file.
        classes: ``(K,)`` int64 from 1.
        is_crowd: ``(K,)`` whether it stands for many objects, or for one that need not be found.
        areas: ``(K,)`` in square pixels of the file.
    """

    images: Tensor
    corners: Tensor
    classes: Tensor
    is_crowd: Tensor
    areas: Tensor

    @classmethod
    def of_rows(cls, rows: list[tuple[int, tuple[float, float, float, float], int, bool, float]]) -> Objects:
        """Put together what is known of each object: position of its image, corners, class, crowd, area."""
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
        """Return the objects at some positions of the table, or where a mask ``(K,)`` is true."""
        return Objects(
            self.images[positions],
            self.corners[positions],
            self.classes[positions],
            self.is_crowd[positions],
            self.areas[positions],
        )

    def inside(self, sizes: Tensor, height: int, width: int) -> Objects:
        """Cut boxes at the borders of their images, and leave those out of which nothing can be seen.

        Args:
            sizes: ``(n, 2)`` width and height of the files.
            height: of the images that networks get, into which the files are fitted.
            width: likewise.
        """
        limits = sizes[self.images].repeat(1, 2).to(self.corners.dtype)
        corners = torch.minimum(self.corners.clamp(min=0.0), limits)
        cut = Objects(self.images, corners, self.classes, self.is_crowd, self.areas)
        sides = (corners[:, 2:] - corners[:, :2]) * scales(sizes, height, width)[self.images]
        return cut.take((sides >= _SMALLEST_SIDE).all(dim=1))


@dataclass(frozen=True, eq=False)
class Annotations:
    """The objects of n image files, at most M a file.

    Attributes:
        sizes: ``(n, 2)`` int64, width and height of the files.
        boxes: in pixels of the files.
        areas: ``(n, M)`` in square pixels of the files, which evaluations call objects small or large by.
        class_names: of the C classes, that of class 1 first.
    """

    sizes: Tensor
    boxes: Boxes
    areas: Tensor
    class_names: tuple[str, ...]

    @classmethod
    def of_objects(cls, sizes: Tensor, objects: Objects, class_names: tuple[str, ...]) -> Annotations:
        """Give every file ``(n, 2)`` its objects, which keep their order."""
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
        """Return those of the files at ``(m,)`` positions."""
        positions = positions.cpu()
        return Annotations(self.sizes[positions], self.boxes.take(positions), self.areas[positions], self.class_names)

    def fitted(self, height: int, width: int) -> Boxes:
        """Return the boxes in pixels of images of one size that the files are fitted into."""
        factors = scales(self.sizes, height, width).repeat(1, 2).unsqueeze(1)
        return Boxes(self.boxes.corners * factors, self.boxes.classes, self.boxes.is_crowd)

    def as_coco(self) -> dict[str, Any]:
        """Return all as the dictionary that COCO's evaluation reads, images and classes numbered from 1."""
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
        return {
            "images": [{"id": number, "width": width, "height": height} for number, (width, height) in sizes],
            "annotations": [
                {"id": number, **dict(zip(columns, row, strict=True))} for number, row in enumerate(rows, start=1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(self.class_names, start=1)],
        }


def fitted_sizes(sizes: Tensor, height: int, width: int) -> Tensor:
    """Return ``(n, 2)`` width and height of files after they were scaled to fit, of the old shape up to rounding."""
    room = torch.tensor([width, height], dtype=torch.float64)
    scale = (room / sizes).min(dim=1, keepdim=True).values
    return (sizes * scale).round().clamp(min=1.0).long()


def scales(sizes: Tensor, height: int, width: int) -> Tensor:
    """Return ``(n, 2)`` pixels of a network's image for a pixel of each file, to the right and down."""
    return (fitted_sizes(sizes, height, width) / sizes.double()).float()
