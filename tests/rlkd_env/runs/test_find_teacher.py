"""A teacher sees images as it was trained with them, and several teach together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import pixels
from torch import nn

from rlkd_env.data import MemoryImages
from rlkd_env.errors import UsageError
from rlkd_env.models import create_model, save_network
from rlkd_env.models.ensemble import Teachers
from rlkd_env.models.normalization import Renormalized
from rlkd_env.runs import find_teacher
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import NetworksConfig, RunConfig
from rlkd_env.runs.run import DistillationRun

OWN = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def teacher_file(folder: Path, name: str = "teacher", channels: int = 3, constants: Any = OWN) -> Path:
    torch.manual_seed(len(name))
    network = create_model("mlp16", 4, (channels, 8, 8))
    path = folder / f"{name}.safetensors"
    save_network(path, network.state_dict(), "mlp16", 4, (channels, 8, 8), normalization=constants)
    return path


def run_with(folder: Path, *teachers: Path, channels: int = 3, **settings: Any) -> DistillationRun:
    x = pixels(100)[..., :channels]
    np.savez(folder / "a.npz", x_train=x.squeeze(-1) if channels == 1 else x, y_train=np.arange(100) % 4)
    data = {"dataset": "arrays", "data_path": str(folder / "a.npz"), "device": "cpu", "batch_size": 8}
    config = {**data, "student": "mlp6", "teacher": tuple(map(str, teachers)), **settings}
    return build_run(RunConfig.from_keywords(config))


@pytest.mark.parametrize("channels", [3, 1])
def test_a_teacher_of_ours_brings_the_constants_that_it_was_trained_with(channels: int, tmp_path: Path) -> None:
    run = run_with(tmp_path, teacher_file(tmp_path), channels=channels)
    assert isinstance(run.teacher, Renormalized)
    assert run.teacher.constants == OWN
    train = run.splits.train
    raw = train.pixels[:5].float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in OWN)
    expected = run.teacher.network((raw.expand(-1, 3, -1, -1) - mean) / std)
    torch.testing.assert_close(run.teacher(train.take(torch.arange(5))), expected, rtol=1e-4, atol=1e-4)


def test_what_is_asked_for_comes_before_and_the_same_constants_need_nothing(tmp_path: Path) -> None:
    path = teacher_file(tmp_path)
    asked = run_with(tmp_path, path, teacher_normalization="inception").teacher
    assert isinstance(asked, Renormalized)
    assert asked.constants == ((0.5,) * 3, (0.5,) * 3)
    words = [str(number) for values in OWN for number in values]
    assert not isinstance(run_with(tmp_path, path, normalization=words).teacher, Renormalized)
    assert not isinstance(run_with(tmp_path, teacher_file(tmp_path, "old", constants=None)).teacher, Renormalized)


def test_a_teacher_of_pixels_from_0_to_1_says_so(tmp_path: Path) -> None:
    """Its file holds the constants 0 and 1, whatever other data are normalised by."""
    run = run_with(tmp_path, teacher_file(tmp_path, constants=((0.0,) * 3, (1.0,) * 3)))
    train = run.splits.train
    assert train.normalization == (train.preprocessing.mean, train.preprocessing.std)
    raw = train.pixels[:5].float() / 255
    assert isinstance(run.teacher, Renormalized)
    torch.testing.assert_close(run.teacher(train.take(torch.arange(5))), run.teacher.network(raw), rtol=1e-4, atol=1e-4)
    plain = MemoryImages(train.pixels, train.labels)
    assert plain.normalization == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("constants", [((0.1,), (0.0,)), ((0.1, 0.2), (1.0, 1.0)), "x", ((float("nan"),), (1.0,))])
def test_constants_that_are_none_are_damage(constants: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is damaged"):
        run_with(tmp_path, teacher_file(tmp_path, constants=constants))


def test_several_teachers_each_see_their_own_images(tmp_path: Path) -> None:
    paths = teacher_file(tmp_path, "one"), teacher_file(tmp_path, "other", constants=((0.5,) * 3, (0.5,) * 3))
    run = run_with(tmp_path, *paths, teacher_weights="entropy")
    assert isinstance(run.teacher, Teachers)
    assert [one.constants[0][0] for one in run.teacher.networks] == [0.1, 0.5]
    alone = [run_with(tmp_path, path).teacher for path in paths]
    images = run.splits.train.take(torch.arange(5))
    torch.testing.assert_close(run.teacher(images), Teachers(alone, "entropy")(images))
    with pytest.raises(UsageError, match="'srrl' compares features, which are one teacher's"):
        run_with(tmp_path, *paths, method="srrl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": ("a", "b"), "teacher_model": ("x", "y", "z")}, "3 names of teacher networks do not fit 2"),
        ({"teacher": "a", "teacher_weights": "entropy"}, "is for several teachers"),
        ({"teacher": ("a", "auto")}, "auto is no teacher among others"),
    ],
)
def test_options_that_do_not_fit_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NetworksConfig(**options)


def test_one_teacher_in_a_list_is_that_teacher() -> None:
    config = NetworksConfig(teacher=["a"], teacher_model=["resnet8"])
    assert (config.teacher, config.teacher_models) == ("a", ("resnet8",))
    both = NetworksConfig(teacher=["a", "b"], teacher_model="resnet8")
    assert both.teacher_models == ("resnet8", "resnet8")


@pytest.mark.parametrize(("options", "expected"), [({}, True), ({"pretrained": False}, False)])
def test_timms_teachers_have_pretrained_weights_unless_asked_otherwise(
    options: dict[str, Any], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def create(name: str, *shape: Any, pretrained: bool) -> nn.Module:
        asked.append(pretrained)
        return create_model("mlp16", *shape)

    monkeypatch.setattr(find_teacher, "create_model", create)
    run_with(tmp_path, Path("timm/any"), teacher_options=options)
    assert asked == [expected]
