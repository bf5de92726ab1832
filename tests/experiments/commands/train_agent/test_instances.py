"""Instance sets: their files, their seeds, and their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_training import train

from experiments.commands.train_agent.instances import INSTANCE_SETS, Instance, read_instance_set
from experiments.config.presets import PRESETS


def test_the_probe_grows_by_images_that_the_student_does_not_train_on() -> None:
    run = Instance("one", {"teacher_images": 1000}, range(2)).build(probe_images=1000, device="cpu")
    assert len(run.probe) == 150 + 700
    others = (run.splits.train, run.splits.validation, Instance("one", {"teacher_images": 1000}, range(2)).test_set())
    probe = {image.tobytes() for image in run.probe.images.numpy()}
    for part in others:
        known = {image.tobytes() for image in part.images.numpy()}
        assert not probe & known


@pytest.mark.parametrize("path", sorted(INSTANCE_SETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_instance_set_of_the_package_trains_on_held_out_seeds(path: Path) -> None:
    instances = read_instance_set(path.stem)
    held_out = {seed for instance in instances.held_out for seed in instance.seeds}
    assert held_out
    for instance in instances.train:
        assert not any(seed in instance.seeds for seed in held_out)
        assert instance.seeds.start >= 10_000  # tests have smaller ones


def test_every_preset_names_an_instance_set() -> None:
    for preset in (PRESETS / "train-agent").glob("*.yaml"):
        read_instance_set(yaml.safe_load(preset.read_text())["instances"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("held_out: []", "has no list 'train'"),
        ("train: [{name: a}]", "every entry needs a name and seeds"),
        ("train: [{name: a, seeds: [5, 5]}]", "every entry needs a name and seeds"),
        ("train: [{name: a, seeds: [0, 5], epoch: 3}]", "unknown option 'epoch'. Did you mean 'epochs'?"),
        ("train: [{name: a, seeds: [0, 5], teacher_recipe: {size: 3}}]", "the teacher of a: unknown option 'size'"),
        ("train: [{name: a, seeds: [0, 5], frozen_features: {noise: -1}}]", "the features of a: noise must not be"),
        ("train: [{name: a, seeds: [0, 5]}]\ntest: []", "unknown option in the config"),
        ("train: [", "neither JSON nor YAML"),
    ],
)
def test_wrong_instance_sets_end_with_exit_code_2(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.yaml").write_text(content)
    assert train(tmp_path / "set.yaml", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
