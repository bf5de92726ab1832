"""Ready-made configs: files that are laid over each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parsed import distill_config

from experiments.cli import main, parse
from experiments.commands.bench.arms import ARMS, METHOD_ARMS
from experiments.config import BenchConfig, CompareConfig, DistillConfig, TeacherConfig
from experiments.config.presets import PRESETS, preset_names, read_preset
from rlkd_env.methods import METHODS, check_method
from rlkd_env.models import check_model

PAIRS = {
    # teacher, student, learning rate, DKD's beta: the field's table
    "resnet56-resnet20": ("resnet56", "resnet20", 0.05, 2),
    "resnet110-resnet32": ("resnet110", "resnet32", 0.05, 2),
    "resnet32x4-resnet8x4": ("resnet32x4", "resnet8x4", 0.05, 8),
    "wrn_40_2-wrn_16_2": ("wrn_40_2", "wrn_16_2", 0.05, 6),
    "wrn_40_2-wrn_40_1": ("wrn_40_2", "wrn_40_1", 0.05, 6),
    "vgg13-vgg8": ("vgg13", "vgg8", 0.05, 6),
    "vgg13-mobilenet_v2": ("vgg13", "mobilenet_v2_half", 0.01, 6),
    "resnet50-mobilenet_v2": ("resnet50_cifar", "mobilenet_v2_half", 0.01, 8),
    "resnet32x4-shufflenet_v1": ("resnet32x4", "shufflenet_v1", 0.01, 8),
    "resnet32x4-shufflenet_v2": ("resnet32x4", "shufflenet_v2", 0.01, 8),
    "wrn_40_2-shufflenet_v1": ("wrn_40_2", "shufflenet_v1", 0.01, 8),
}


def test_every_usual_pair_has_a_preset_and_no_other() -> None:
    files = (PRESETS / "distill" / "cifar100").glob("*.yaml")
    assert {path.stem for path in files} == set(PAIRS)


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_name_their_networks_and_recipe(pair: str) -> None:
    teacher, student, learning_rate, _ = PAIRS[pair]
    run = distill_config("--preset", f"cifar100/{pair}").run
    assert (run.networks.teacher_model, run.networks.student, run.recipe.learning_rate) == (
        teacher,
        student,
        learning_rate,
    )
    assert (run.data.dataset, run.recipe.epochs, run.recipe.batch_size, run.recipe.schedule) == (
        "cifar100",
        240,
        64,
        "step",
    )
    check_model(teacher)
    check_model(student)


def test_every_method_for_images_has_a_preset_for_every_pair() -> None:
    methods = {path.stem for path in (PRESETS / "distill" / "methods").glob("*.yaml")}
    for_images = {name for name, method in METHODS.items() if "classification" in method.tasks}
    assert {name.removesuffix("-original") for name in methods} == for_images
    for method in methods:
        for pair in PAIRS:
            options = read_preset(f"cifar100/{pair}/{method}", "distill", DistillConfig.option_names())
            config = DistillConfig.from_keywords(options)
            check_method(config.run.distillation.method, config.run.distillation.method_options)
            assert config.run.distillation.method == method.removesuffix("-original")
            assert config.run.networks.teacher_model == PAIRS[pair][0]
            if method == "dkd":
                assert config.run.distillation.method_options["beta"] == PAIRS[pair][3]
            if method.endswith("-original"):
                options = config.run.distillation.method_options
                assert options["hard"] if method == "deit-original" else options["kd_weight"] == 0
                assert config.agent.rule == "fixed"


def test_options_on_the_command_line_come_before_the_preset() -> None:
    config = distill_config("--preset", "cifar100/resnet56-resnet20/dkd/paper", "--epochs", "3", "--student", "resnet8")
    assert (config.run.recipe.epochs, config.run.networks.student, config.run.networks.teacher_model) == (
        3,
        "resnet8",
        "resnet56",
    )
    assert (config.agent.learn_interval, config.run.environment.temperature_max) == (20, 10)


@pytest.mark.parametrize("name", ["cifar100/resnet56-resnet21/kd", "kkd", "methods", "cifar100/methods/kd", "", "../a"])
def test_an_unknown_preset_lists_the_valid_ones(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--preset", name]) == 2
    assert "unknown preset" in (told := capsys.readouterr().err)
    assert "cifar100/resnet56-resnet20" in told
    assert ".../crd-original" in told


def test_presets_of_other_commands_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert "paper" not in preset_names("teacher")
    assert main(["teacher", "--preset", "paper"]) == 2
    assert "Valid: bccd, cifar100" in capsys.readouterr().err


def test_a_teachers_preset_takes_any_network(tmp_path: Path) -> None:
    config = parse(["teacher", "--preset", "cifar100", "--model", "vgg13"])
    assert isinstance(config, TeacherConfig)
    recipe = config.recipe()
    assert (recipe.model, recipe.optimizer, recipe.schedule, recipe.epochs) == ("vgg13", "sgd", "step", 240)
    assert config.folder == Path("teachers/cifar100-vgg13-seed0")


def test_layers_merge_the_options_of_a_method() -> None:
    options = read_preset("cifar100/vgg13-vgg8/dkd", "distill", DistillConfig.option_names())
    assert options["method_options"] == {"task_weight": 1, "alpha": 1, "beta": 6, "warmup_epochs": 20}


def test_imagenets_preset_is_the_fields_recipe_for_eight_gpus() -> None:
    config = distill_config("--preset", "imagenet/resnet34-resnet18")
    run = config.run
    assert (run.networks.teacher_model, run.networks.student) == ("torchvision/resnet34", "torchvision/resnet18")
    assert (run.recipe.epochs, run.recipe.batch_size, run.recipe.learning_rate, run.recipe.weight_decay) == (
        100,
        512,
        0.2,
        1e-4,
    )
    assert run.distillation.method_options == {"task_weight": 0.5, "kd_weight": 0.5}
    assert config.agent.fixed_temperature == 1
    check_model(run.networks.teacher_model)
    check_model(run.networks.student)
    recipe = run.recipe
    optimizer = recipe.create_optimizer([torch.nn.Parameter(torch.zeros(1))])
    schedule, rates = recipe.create_schedule(optimizer, total_steps=100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [epoch for epoch in range(1, 100) if rates[epoch] < 0.5 * rates[epoch - 1]] == [30, 60, 90]
    assert rates[-1] == pytest.approx(2e-4)


@pytest.mark.parametrize("milestones", ["0.6 0.3", "0.5 1", "0 0.5"])
def test_milestones_out_of_order_are_refused(
    milestones: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", "--out", str(tmp_path / "a"), "--milestones", *milestones.split()]) == 2
    assert "the milestones must rise within 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["digits_detection", "bccd", "coco"])
def test_presets_of_detection_go_with_run_and_bench(name: str) -> None:
    config = distill_config("--preset", name)
    check_model(config.run.networks.student)
    assert config.run.networks.student.startswith("fasterrcnn/")
    assert "detection" in METHODS[config.run.distillation.method].tasks
    assert config.agent.agent == "ppo"
    bench = parse(["bench", "--preset", name])
    assert isinstance(bench, BenchConfig)
    assert bench.run == config.run


def test_the_bench_has_presets_of_its_own_beside_those_of_distill(capsys: pytest.CaptureFixture[str]) -> None:
    bench = parse(["bench", "--preset", "gpu", "--seconds", "5"])
    assert isinstance(bench, BenchConfig)
    assert (bench.bench.random_images, bench.bench.seconds, bench.run.networks.student) == (True, 5, "resnet20")
    assert {*bench.bench.arms} == {*ARMS} - {"plain_kd", *METHOD_ARMS}
    assert {"gpu", "paper"} <= {*preset_names("bench")}
    assert main(["distill", "--preset", "gpu"]) == 2
    assert "unknown preset 'gpu'" in capsys.readouterr().err


def test_the_comparison_of_methods_has_all_of_them_at_both_kinds_of_temperatures() -> None:
    arms = read_preset("methods", "compare", CompareConfig.option_names())["arms"]
    named = {
        name
        for name, method in METHODS.items()
        if "classification" in method.tasks and not method.uses_two_heads  # of which the preset's student has one
    }
    assert set(arms) == {f"{name}{end}" for name in named - {"kd", "cross_entropy"} for end in ("", "-T=4")}
    for name, options in arms.items():
        assert options == {"method": name.removesuffix("-T=4"), "rule": "fixed" if name.endswith("-T=4") else "anneal"}
