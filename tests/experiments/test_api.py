"""``distill`` in Python: what it takes, what it gives, and that it is what ``rlkd distill`` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3 import PPO
from torch import Tensor, nn
from torch.utils.data import Dataset

from agents.learned import load_policy
from agents.learned.coefficient_policy import CoefficientPolicy
from agents.rules.base import Rule
from agents.rules.published import LSKD
from agents.rules.simple import FixedTemperature
from experiments import DistillationResult, distill
from experiments.cli import main
from rlkd_env.data.sources.digits import Digits
from rlkd_env.errors import UsageError
from rlkd_env.instances.outputs import InstanceOutputs
from rlkd_env.instances.temperature import Temperature
from rlkd_env.methods import KD
from rlkd_env.utils.files import tensors_hash

CLASSES = 4
QUICK: dict[str, Any] = {"epochs": 2, "progress": False, "device": "cpu"}
SMALL: dict[str, Any] = {**QUICK, "batch_size": 32}
OPTIONS = ("--epochs", "2", "--device", "cpu", "--no-progress")


def squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares whose brightness, noisily, is their class."""
    labels = np.arange(count) % CLASSES
    noise = np.random.default_rng(seed).normal(size=(count, 8, 8, 1))
    return (40 + 50 * labels[:, None, None, None] + 30 * noise).clip(0, 255).astype(np.uint8), labels


TRAIN, TEST, VALIDATION = squares(160, 0), squares(40, 1), squares(24, 2)


class Squares(Dataset):
    """The same as a torch Dataset, ready for a network."""

    def __init__(self, arrays: tuple[np.ndarray, np.ndarray]) -> None:
        self.pixels, self.targets = torch.from_numpy(arrays[0]).permute(0, 3, 1, 2) / 255.0, arrays[1]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.pixels[position], int(self.targets[position])


class Line(nn.Module):
    """A small network with a part that evaluation mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_networks_and_a_dataset_as_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    teacher, student = Line().train(), Line()
    before = [tensors_hash(network.state_dict()) for network in (teacher, student)]
    sets = {"test": Squares(TEST), "validation": Squares(VALIDATION)}
    result = distill(teacher, student, Squares(TRAIN), 4, **sets, **SMALL, workers=0, force=True)
    assert isinstance(result.student, Line)
    assert not result.student.training
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert [tensors_hash(network.state_dict()) for network in (teacher, student)] == before
    images = torch.stack([Squares(TEST)[position][0] for position in range(len(TEST[1]))])
    accuracy = (result.student(images).argmax(dim=1) == torch.from_numpy(TEST[1])).float().mean()
    assert result.test_accuracy == pytest.approx(float(accuracy))
    assert result.teacher_test_accuracy is not None
    assert result.summary["data"] | {"test_duplicates": 0} == {
        "train": 144,
        "probe": 16,
        "validation": 24,
        "teacher_train": 144,
        "test": 40,
        "test_duplicates": 0,
    }
    assert result.summary["objects"] == ["teacher", "student", "data"]
    assert (result.summary["student"], result.summary["dataset"]) == ("Line", "Squares")
    assert (result.folder, result.policy) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_network_goes_on_from_its_weights_and_a_function_gives_fresh_ones() -> None:
    forced = {**SMALL, "force": True}
    trained = distill(Line(), Line(), (TRAIN[0], TRAIN[1]), 4, **forced).last_student
    still = {**forced, "learning_rate": 1e-12, "epochs": 1}
    again = distill(Line(), trained, TRAIN, 4, **still).last_student
    for name, value in trained.named_parameters():
        assert torch.allclose(again.get_parameter(name), value, atol=1e-6)
    teacher = Line()
    fresh = [distill(teacher, Line, TRAIN, 4, seed=seed, **forced).summary["student_sha256"] for seed in (0, 0, 1)]
    assert fresh[0] == fresh[1] != fresh[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the arrays, a teacher for them, and the training images as files."""
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "data.npz", x_train=TRAIN[0], y_train=TRAIN[1], x_test=TEST[0], y_test=TEST[1])
    given = ["--dataset", "arrays", "--data-path", str(folder / "data.npz"), "--model", "cnn4"]
    assert main(["teacher", *given, *OPTIONS, "--out", str(folder / "teacher")]) == 0
    for number, (pixels, label) in enumerate(zip(*TRAIN, strict=True)):
        (folder / "images" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(folder / "images" / f"class{label}" / f"{number}.png")
    return folder


def test_arrays_files_and_the_command_give_the_same_student(files: Path, tmp_path: Path) -> None:
    given = ["--dataset", "arrays", "--data-path", str(files / "data.npz"), "--teacher", str(files / "teacher")]
    given += ["--student", "cnn4", "--rule", "fixed", "--fixed-temperature", "3", "--batch-size", "32"]
    assert main(["distill", *given, *OPTIONS, "--out", str(tmp_path / "command")]) == 0
    told = json.loads((tmp_path / "command" / "summary.json").read_text())
    arrays = {"x_train": TRAIN[0], "y_train": TRAIN[1], "x_test": torch.from_numpy(TEST[0]), "y_test": TEST[1]}
    for data, more in ((files / "data.npz", {}), (arrays, {}), (TRAIN, {"test": TEST})):
        result = distill(files / "teacher", "cnn4", data, 3, **more, **SMALL)
        assert result.summary["student_sha256"] == told["student_sha256"] == tensors_hash(result.student.state_dict())
        assert result.summary["student_last_sha256"] == told["student_last_sha256"]
        assert result.test_accuracy == told["student_test_accuracy"]


def test_validation_arrays_choose_the_student(files: Path) -> None:
    result = distill(files / "teacher", "cnn4", TRAIN, 3, validation=VALIDATION, **SMALL)
    assert result.summary["data"]["validation"] == len(VALIDATION[1])
    assert result.summary["data"]["train"] == 144
    with pytest.raises(UsageError, match="the validation images of the data have the shape"):
        distill(files / "teacher", "cnn4", TRAIN, 3, validation=(VALIDATION[0][:, 2:], VALIDATION[1]), **SMALL)


def test_a_folder_of_images(files: Path) -> None:
    torch.manual_seed(0)  # which untrained teacher decides what the student learns
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))
    result = distill(teacher, "cnn4", str(files / "images"), 3, image_size=8, force=True, **SMALL)
    assert result.summary["dataset"] == "image_folder"
    assert result.test_accuracy is None
    assert result.validation_accuracy > 0.0


KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "number": (3, ("--rule", "fixed", "--fixed-temperature", "3")),
    "stds": ("2s", ("--rule", "fixed", "--fixed-temperature", "2s")),
    "rule": ("lskd", ("--rule", "lskd")),
    "rule's class": (LSKD, ("--rule", "lskd")),
    "default": (None, ()),
    "pretrained": ("pretrained", ("--agent", "pretrained")),
    "agent": ("ppo", ("--agent", "ppo", "--warmup-epochs", "1")),
    "agent's class": (PPO, ("--agent", "ppo", "--warmup-epochs", "1")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_temperature_is_what_the_command_makes_of_it(kind: str, tmp_path: Path) -> None:
    temperature, options = KINDS[kind]
    settings = {"warmup_epochs": 1} if "--warmup-epochs" in options else {}
    result = distill("auto", "auto", "digits", temperature, **QUICK, **settings, seed=3, folder=tmp_path / "python")
    command = ["distill", *options, *OPTIONS, "--seed", "3", "--out", str(tmp_path / "command")]
    assert main(command) == 0
    told = json.loads((tmp_path / "command" / "summary.json").read_text())
    for name in ("student_sha256", "student_last_sha256", "config_hash", "temperature_from", "settings"):
        assert result.summary[name] == told[name], name
    names = [
        sorted(path.name for path in (tmp_path / folder).iterdir() if not path.name.startswith("events.out.tfevents."))
        for folder in ("python", "command")
    ]
    assert names[0] == names[1]
    assert json.loads((tmp_path / "python" / "summary.json").read_text()) == result.summary
    assert (result.policy is not None) == ("--warmup-epochs" in options)


class Softer(Rule):
    """A rule of the user's own."""

    def forward(self, outputs: InstanceOutputs) -> Temperature:
        return Temperature.shared(2.0 + outputs.teacher_probabilities.amax(dim=-1))


@pytest.mark.parametrize(
    ("temperature", "label", "mean"),
    [
        (FixedTemperature(3.0), "FixedTemperature", 3.0),
        (Softer(), "Softer", None),
        (Softer, "Softer", None),
        (lambda outputs: Temperature.shared(torch.full(outputs.labels.shape, 5.0)), "<lambda>", 5.0),
        (load_policy("pretrained"), "CoefficientPolicy", None),
    ],
    ids=["rule", "own rule", "own rule's class", "function", "policy"],
)
def test_temperatures_from_objects(temperature: Any, label: str, mean: float | None) -> None:
    result = distill("auto", "auto", "digits", temperature, **QUICK)
    assert result.summary["temperature_from"] == label
    assert mean is None or result.summary["mean_temperature"] == pytest.approx(mean)
    assert result.history["temperature_mean"][0] > 0.5


def test_a_saved_policy_by_its_path(tmp_path: Path) -> None:
    policy = load_policy("pretrained")
    policy.save(tmp_path)
    ours, packaged = (distill("auto", "auto", "digits", given, **QUICK) for given in (tmp_path, policy))
    assert ours.summary["temperature_from"] == "policy"
    assert ours.summary["student_sha256"] == packaged.summary["student_sha256"]


@pytest.mark.slow
def test_an_agent_starts_from_a_policy_by_its_path(tmp_path: Path) -> None:
    load_policy("pretrained").save(tmp_path)
    results = [
        distill("auto", "auto", "digits", "ppo", around=given, warmup_epochs=1, **QUICK)
        for given in (tmp_path, "pretrained")
    ]
    assert isinstance(results[0].policy.around, CoefficientPolicy)
    assert len({result.summary["student_sha256"] for result in results}) == 1


class Doubled(KD):
    """A method of the user's own."""

    def __init__(self, kd_weight: float = 1.8) -> None:
        super().__init__(kd_weight=kd_weight)


def test_parts_and_data_sources_as_objects() -> None:
    source = Digits()
    plain, same = (distill("auto", "auto", data, 4, method=KD, **QUICK) for data in (source, "digits"))
    assert plain.summary["student_sha256"] == same.summary["student_sha256"]
    assert plain.summary["method"] == "kd"
    other = distill("auto", "auto", source, 4, method=Doubled, **QUICK)
    assert other.summary["method"].endswith(":Doubled")
    assert other.summary["student_sha256"] != plain.summary["student_sha256"]


def test_the_result_is_a_table_and_reads_well() -> None:
    result = distill("auto", "auto", "digits", "lskd", **QUICK)
    assert {len(values) for values in result.history.values()} == {2}
    assert result.history["epoch"] == [1, 2]
    assert result.history["validation_accuracy"][-1] == result.summary["student_last_val_accuracy"]
    assert "temperature_quantile_0.95" in result.history
    told = repr(result)
    assert "accuracy: validation" in told
    assert "kd, temperatures from lskd, 2 epochs in" in told
    assert isinstance(result, DistillationResult)


def test_global_random_generators_are_left_as_they_are() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    distill("auto", "auto", "digits", "ppo", warmup_epochs=1, **QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_a_preset_says_what_is_not_given() -> None:
    result = distill("auto", "auto", "digits", "lskd", preset="paper", **QUICK)
    assert result.summary["settings"]["temperature_max"] == 10
    assert (result.summary["temperature_from"], result.summary["epochs"]) == ("lskd", 2)


def test_a_folder_with_a_run_is_not_lost(tmp_path: Path) -> None:
    def again(**settings: Any) -> DistillationResult:
        return distill("auto", "auto", "digits", 4, folder=tmp_path / "run", tensorboard=False, **QUICK, **settings)

    first = again()
    assert first.folder == tmp_path / "run"
    with pytest.raises(UsageError, match="holds another run: add overwrite to replace it or resume"):
        again()
    with pytest.raises(UsageError, match="is finished already"):
        again(resume=True)
    assert again(overwrite=True).summary["student_sha256"] == first.summary["student_sha256"]


def test_a_run_of_objects_is_not_made_again_from_its_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distill("auto", "auto", "digits", FixedTemperature(2.0), folder=tmp_path, tensorboard=False, **QUICK)
    assert main(["validate", str(tmp_path)]) == 2
    assert "made in Python with objects (temperature)" in capsys.readouterr().err


def test_an_interrupt_saves_the_run_and_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.session.checkpoints import SafePoints

    def run(folder: str, **settings: Any) -> DistillationResult:
        given: dict[str, Any] = {**QUICK, "epochs": 6, "folder": tmp_path / folder, "tensorboard": False}
        return distill("auto", "auto", "digits", FixedTemperature(2.0), **given, **settings)

    whole, reach = run("whole"), SafePoints.reach

    def stop(points: SafePoints) -> None:
        if points._parts["run"].epoch >= 3:
            points.stop.ask()
        reach(points)

    with monkeypatch.context() as patched:
        patched.setattr(SafePoints, "reach", stop)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    resumed = run("stopped", resume=True)
    assert resumed.summary["student_last_sha256"] == whole.summary["student_last_sha256"]
    assert resumed.history["epoch"] == [1, 2, 3, 4, 5, 6]


def diverging(outputs: InstanceOutputs) -> Temperature:
    return Temperature.shared(torch.full(outputs.labels.shape, 4.0))


def test_a_run_that_diverges_says_so() -> None:
    with pytest.raises(UsageError, match=r"diverged at update .* try a lower learning_rate"):
        distill("auto", "auto", "digits", diverging, learning_rate=1e30, **QUICK)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "teacher": (lambda: distill(3, "auto", "digits"), "the teacher must be a torch.nn.Module, a path or a name"),  # type: ignore[arg-type]
    "teacher's path": (lambda: distill("/nowhere.safetensors", "auto", "digits"), "does not exist"),
    "student": (lambda: distill("auto", 3, "digits"), "the student must be a torch.nn.Module, a function"),  # type: ignore[arg-type]
    "student's name": (lambda: distill("auto", "resnt20", "digits"), "unknown network 'resnt20'. Did you mean"),
    "data": (lambda: distill("auto", "auto", 3), "the data must be arrays, a torch Dataset"),
    "data's name": (lambda: distill("auto", "auto", "digit"), "unknown data set or path 'digit'. Did you mean"),
    "half of the data": (lambda: distill("auto", "auto", {"x_train": TRAIN[0]}), "lack the array y_train"),
    "array's name": (lambda: distill("auto", "auto", {"x": TRAIN[0]}), "unknown array 'x'"),
    "three arrays": (lambda: distill("auto", "auto", (1, 2, 3)), "data must be a pair of images and classes"),
    "test": (lambda: distill("auto", "auto", Squares(TRAIN), test=TEST), "test must be a torch Dataset"),
    "test of a name": (lambda: distill("auto", "auto", "digits", test=TEST), "test images can be given only with"),
    "temperature": (lambda: distill("auto", "auto", "digits", "ppoo"), "unknown temperature 'ppoo'. Did you mean"),
    "negative": (lambda: distill("auto", "auto", "digits", -1), "must be positive"),
    "no temperature": (lambda: distill("auto", "auto", "digits", [4]), "the temperature must be a number, or a rule"),
    "method": (lambda: distill("auto", "auto", "digits", method="kdd"), "unknown method 'kdd'. Did you mean 'kd'?"),
    "setting": (lambda: distill("auto", "auto", "digits", epoch=3), "unknown option 'epoch'. Did you mean 'epochs'?"),
    "option": (lambda: distill("auto", "auto", "digits", rule="lskd"), "use the argument temperature"),
    "both": (lambda: distill("auto", "auto", "digits", 4, fixed_temperature=3), "fixed_temperature follows from"),
    "words": (
        lambda: distill("auto", "auto", "digits", discount=0.9),
        "^discount, agent_options, calibrator and acting",
    ),
    "command": (lambda: distill("auto", "auto", "cifar10", 4), "is neither .* pass download, or the folder"),
    "no teacher": (
        lambda: distill("auto", "auto", TRAIN, 4),
        "rlkd teacher --dataset arrays --model",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_told_in_the_words_of_the_call(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLKD_DATA", str(tmp_path))
    call, message = WRONG[name]
    with pytest.raises(UsageError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_population_gives_its_members_too(tmp_path: Path) -> None:
    options: dict[str, Any] = {"population": 3, "run_mode": "serial", "folder": tmp_path / "population", **QUICK}
    result = distill("auto", "auto", "digits", temperature="fixed", keep="ensemble", **options)
    told = result.summary["population"]
    assert [*result.members] == [member["name"] for member in told["members"]]
    images = torch.rand(4, 1, 8, 8)
    probabilities = torch.stack([one(images).softmax(dim=-1) for one in result.members.values()]).mean(dim=0)
    torch.testing.assert_close(result.student(images).softmax(dim=-1), probabilities)
    assert result.test_accuracy == told["candidates"]["ensemble"]["test_accuracy"]
    name, temperature = told["members"][1]["name"], float(told["members"][1]["fixed_temperature"])
    alone = distill("auto", "auto", "digits", temperature=temperature, **QUICK)
    assert alone.members == {}
    for one, other in zip(result.members[name].parameters(), alone.student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_population_of_an_agent_says_in_keywords_what_it_needs() -> None:
    with pytest.raises(UsageError, match=r"needs calibrator uniform, .* and explore=False"):
        distill("auto", "auto", "digits", temperature="ppo", population=2, **QUICK)


def test_a_population_of_one_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="with one policy would all be the same student"):
        distill("auto", "auto", "digits", temperature=FixedTemperature(2.0), population=2, **QUICK)
