"""Small convolutional networks of various widths, for images such as Fashion-MNIST's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from rlkd_env.models.classifiers.layers import convolution, initialise_convolutions, require_size
from rlkd_env.models.taps.features import Taps


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with batch norm, ReLU and max pooling between them, average pooling, a linear layer.

    The first convolution has ``width`` channels, the others twice and four times as many. With 10 classes and grey
    images there are 1,702 parameters at width 4, 6,274 at 8, 94,186 at 32 and 210,394 at 48.
    """

    def __init__(self, width: int, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        require_size(f"cnn{width}", image_shape, smallest=4)
        widths = (width, 2 * width, 4 * width)
        self.conv1, self.bn1 = convolution(image_shape[0], widths[0], 3), nn.BatchNorm2d(widths[0])
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = convolution(widths[0], widths[1], 3), nn.BatchNorm2d(widths[1])
        self.relu2 = nn.ReLU()
        self.conv3, self.bn3 = convolution(widths[1], widths[2], 3), nn.BatchNorm2d(widths[2])
        self.relu3 = nn.ReLU()
        self.pool, self.avgpool = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        activations = ("relu1", "relu2", "relu3")
        self.taps = Taps(stages=activations, preactivations=activations, classifier="fc")
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, channels, H, W)`` to logits ``(N, C)``."""
        maps = self.pool(self.relu1(self.bn1(self.conv1(images))))
        maps = self.pool(self.relu2(self.bn2(self.conv2(maps))))
        maps = self.relu3(self.bn3(self.conv3(maps)))
        return self.fc(self.avgpool(maps).flatten(1))


CNNS: dict[str, Callable[[int, tuple[int, int, int]], nn.Module]] = {
    f"cnn{width}": partial(SmallCNN, width) for width in (4, 8, 16, 32, 48)
}
