"""VGG networks with batch norm for small images (Simonyan and Zisserman, arXiv 1409.1556), with one linear layer.

Parameters are named as in the published weights of RepDistiller and mdistiller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from rlkd_env.models.classifiers.layers import initialise_convolutions, require_size
from rlkd_env.models.taps.features import Taps

WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five blocks of 3x3 convolutions with max pooling between them, average pooling and a linear layer.

    The last max pooling, between the fourth and the fifth block, exists only for images of at least 64 pixels.
    """

    def __init__(self, convolutions: tuple[int, ...], num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        require_size("a VGG", image_shape, smallest=8)
        for index, count in enumerate(convolutions):
            self.add_module(f"block{index}", _block(channels, WIDTHS[index], count))
            # Outside the block, so that the block is numbered as in the published weights.
            self.add_module(f"relu{index}", nn.ReLU())
            channels = WIDTHS[index]
        poolings = 4 if min(height, width) >= 64 else 3
        self.pools = nn.ModuleList(
            [nn.MaxPool2d(2) if index < poolings else nn.Identity() for index in range(4)] + [nn.AdaptiveAvgPool2d(1)]
        )
        self.classifier = nn.Linear(channels, num_classes)
        activations = ("relu1", "relu2", "relu3", "relu4")
        self.taps = Taps(stages=activations, preactivations=activations, classifier="classifier")
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        maps = images
        for index, pool in enumerate(self.pools):
            maps = pool(getattr(self, f"relu{index}")(getattr(self, f"block{index}")(maps)))
        return self.classifier(maps.flatten(1))


def _block(channels: int, width: int, convolutions: int) -> nn.Sequential:
    """Return convolutions with batch norms and activations, without the last activation."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers[:-1])


VGGS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    "vgg8": partial(VGG, (1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, (2, 2, 4, 4, 4)),
}
