"""FitNets: the hint of a teacher's map in the middle of the network (Romero et al., arXiv 1412.6550)."""

from __future__ import annotations

from torch import Tensor, nn

from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.methods.base import Pair, features_of
from rlkd_env.methods.feature_method import FeatureMethod
from rlkd_env.methods.maps import Shape, mean_by_instance, shapes_of_stage
from rlkd_env.utils.options import NonNegative


def regressor(student: Shape, teacher: Shape) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU from a student's map to the channels and size of a teacher's.

    A student's map of twice the size is halved by a stride of 2, one of half the size doubled by a transposed
    convolution, and a larger one of any other size cropped by a kernel as large as the difference, without padding.

    Raises:
        UsageError: If the student's map is smaller and not of half the size.
    """
    (channels, height, width), (wanted, teacher_height, teacher_width) = student, teacher
    convolution: nn.Module
    if (height, width) == (2 * teacher_height, 2 * teacher_width):
        convolution = nn.Conv2d(channels, wanted, kernel_size=3, stride=2, padding=1)
    elif (2 * height, 2 * width) == (teacher_height, teacher_width):
        convolution = nn.ConvTranspose2d(channels, wanted, kernel_size=4, stride=2, padding=1)
    elif height >= teacher_height and width >= teacher_width:
        convolution = nn.Conv2d(channels, wanted, kernel_size=(1 + height - teacher_height, 1 + width - teacher_width))
    else:
        raise UsageError(
            f"method 'fitnet' cannot bring the student's map of {height} x {width} to the teacher's {teacher_height} x "
            f"{teacher_width}: choose another stage"
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(wanted), nn.ReLU())


class FitNet(FeatureMethod):
    """KD + ``feature_weight`` · the mean squared difference of the teacher's map and one regressed from the student's.

    The regressor is trained along, from the start and with the same optimiser; the paper trains the student up to the
    hint in a stage of its own, which neither RepDistiller nor mdistiller does. Because it has a batch norm, the loss of
    an instance depends on the others in its batch.

    Args:
        stage: The stage of both networks' taps; the default, the last but one, is mdistiller's for networks of three.

    Raises:
        UsageError: If a network has no such stage, or its maps do not fit.
    """

    published_weight = 100.0

    def __init__(
        self,
        pair: Pair,
        task_weight: NonNegative = 0.1,
        kd_weight: NonNegative = 0.9,
        feature_weight: NonNegative | None = None,
        stage: int = -2,
        temperature_squared: bool = True,
    ) -> None:
        super().__init__(pair, task_weight, kd_weight, feature_weight, temperature_squared)
        self.stage = stage
        self.regressor = regressor(*shapes_of_stage(pair, "fitnet", stage))

    def feature_losses(self, outputs: InstanceOutputs) -> dict[str, Tensor]:
        """Return the term ``fitnet`` ``(N,)``."""
        student, teacher = features_of(outputs)
        difference = self.regressor(student.stages[self.stage]) - teacher.stages[self.stage]
        return {"fitnet": self.feature_weight * mean_by_instance(difference.square())}
