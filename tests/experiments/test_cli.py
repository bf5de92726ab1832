"""The command line: what it imports, how it is told of errors, and who sets the temperatures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parsed import distill_config

from experiments.cli import main, parse
from experiments.config import CompareConfig, TeacherConfig, TrainAgentConfig, config_hash
from experiments.config.choice import AgentChoice, Around, RuleChoice, SavedPolicy
from experiments.config.presets import laid_over
from experiments.session.folder import CONFIG_FILE
from rlkd_env.errors import UsageError
from rlkd_env.utils.choices import AGENT_WIDTH

HEAVY = ("torch", "torchvision", "gymnasium", "numpy", "stable_baselines3", "matplotlib", "sklearn", "scipy")
ROOT = Path(__file__).parents[2]


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, whose packages come before ours."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["distill", "--help"], 0),
        (["compare", "--help"], 0),
        (["train-agent", "--preset", "digits", "--help"], 0),
        (["distill", "--agnet", "ppo"], 2),
        (["distill", "--epochs", "0"], 2),
        (["teacher", "--preset", "paper"], 2),
    ],
)
def test_help_and_wrong_options_import_nothing_heavy(arguments: list[str], code: int, tmp_path: Path) -> None:
    script = f"""
import sys
from experiments.cli import main
try:
    code = main({arguments})
except SystemExit as stop:
    code = stop.code or 0
print([name for name in {HEAVY} if name in sys.modules], code)
"""
    assert run_python(script, tmp_path).stdout.splitlines()[-1] == f"[] {code}"


def test_another_package_agents_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise ImportError('openai is missing')")
    script = "import sys; from experiments.cli import main; sys.exit(main(['distill', '--epochs', '1']))"
    stopped = run_python(script, tmp_path)
    assert stopped.returncode == 2
    assert stopped.stderr.startswith("rlkd: error: the package 'agents' in ")
    assert "install rlkd into an environment of its own" in stopped.stderr
    assert stopped.stderr.count("\n") == 1
    imported = run_python("import experiments; experiments.distill", tmp_path).stderr.splitlines()
    assert imported[-1].startswith("rlkd_env.errors.UsageError: the package 'agents' in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", "--rule", "fixed", "--agent", "ppo"], "--rule and --agent exclude each other"),
        (["distill", "--agent", "ppo", "--policy", "pretrained"], "--agent and --policy exclude each other"),
        (["distill", "--around", "lskd", "--agent", "pretrained"], "--around is for an agent that learns"),
        (
            ["distill", "--around-options", "tau", "2", "--agent", "ppo", "--around", "None"],
            "--around-options needs an agent that learns, such as --agent ppo, and an --around",
        ),
        (["distill", "--around-options", "first", "2s"], "--around-options needs an agent that learns"),
        (["distill", "--rule-options", "tau", "2", "--agent", "ppo"], "--rule-options needs a --rule"),
        (["distill", "--agent", "ars"], "the agent ars cannot learn within a run: it learns from whole runs"),
        (["distill", "--agent", "recurrent_ppo"], "cannot learn within a run: its policy remembers"),
        (["distill", "--discount", "0.9"], "are for an agent that learns"),
        (["distill", "--out"], "--out needs a value"),
        (["distill", "--uncertain-ranks", "0.1"], "--uncertain-ranks needs 2 values"),
        (["distill", "--method-options", "beta"], "--method-options: every name needs a value: 'beta' has none"),
        (["distill", "--precision", "float16"], "--precision cannot be 'float16'. Valid: auto, float32, bfloat16"),
        (["distill", "--learning-rate", "inf"], "learning rate must be finite, not inf"),
        (["distill", "--train-images", "0"], "train images must be at least 1 image, not 0"),
        (["distill", "--curriculum-phases", "2"], "phases must be at least 3 phases, not 2"),
        (["distill", "--sequence-phase", "3"], "Unrecognized options: --sequence-phase"),
        (["distil"], "unknown command 'distil'. Did you mean 'distill'?"),
        (["validate"], "SUMMARY is missing"),
        (["bench", "--rounds", "0"], "rounds must be at least 1, not 0"),
        (["teacher", "--momentum", "1"], "momentum must be at least 0 and below 1, not 1.0"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("rlkd: error: ")
    assert told.count("\n") == 1


def test_who_sets_the_temperatures_is_one_choice() -> None:
    assert distill_config().agent.choice == RuleChoice("anneal", {}, 4.0)
    assert distill_config().settings()["rule"] == "anneal"
    assert distill_config("--rule-options", "first", "2s").agent.choice == RuleChoice("anneal", {"first": "2s"}, 4.0)
    assert distill_config("--agent", "pretrained").agent.choice == SavedPolicy("pretrained")
    assert distill_config("--policy", "mine").agent.choice == SavedPolicy("mine")
    rule = distill_config("--rule", "lskd", "--rule-options", "tau", "3", "--fixed-temperature", "2s")
    assert rule.agent.choice == RuleChoice("lskd", {"tau": 3}, "2s")
    agent = distill_config("--agent", "ppo", "--fixed-temperature", "3", "--agent-options", "n_steps", "4").agent.choice
    assert isinstance(agent, AgentChoice)
    assert (agent.name, agent.options, agent.acts_around) == ("ppo", {"n_steps": 4}, Around(AGENT_WIDTH, "keep"))
    assert agent.warm_up == RuleChoice("anneal", {}, 3.0)
    free = distill_config("--agent", "ppo", "--around", "None", "--fixed-temperature", "3").agent.choice
    assert isinstance(free, AgentChoice)
    assert (free.acts_around, free.warm_up, free.label) == (None, RuleChoice("fixed", {}, 3.0), "ppo")
    around = distill_config("--agent", "sac", "--around", "lskd", "--around-options", "tau", "3").agent.choice
    assert isinstance(around, AgentChoice)
    assert around.warm_up == RuleChoice("lskd", {"tau": 3}, 4.0)
    assert around.label == "sac-around-lskd"


def test_an_agent_acts_around_a_policy_that_is_named_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "anneal", "lskd"):
        (tmp_path / name).mkdir()
    for name, expected in {
        "pretrained": SavedPolicy("pretrained"),
        "mine": SavedPolicy("mine"),
        "runs/nowhere": SavedPolicy("runs/nowhere"),
        "anneal": RuleChoice("anneal", {}, 4.0),  # whatever folders there are
        "lskd": RuleChoice("lskd", {}, 4.0),
        "nowhere": RuleChoice("nowhere", {}, 4.0),
    }.items():
        agent = distill_config("--agent", "ppo", "--around", name).agent.choice
        assert isinstance(agent, AgentChoice)
        assert agent.warm_up == expected
    assert distill_config("--agent", "ppo", "--around", "mine").agent.choice.label == "ppo-around-policy"


def test_a_choice_on_the_command_line_replaces_that_of_preset_and_file(tmp_path: Path) -> None:
    preset = ("--preset", "cifar100/vgg13-vgg8/crd-original")
    assert distill_config(*preset).agent.rule == "fixed"
    assert distill_config(*preset, "--agent", "ppo").agent.choice.label == "ppo-around-anneal"
    assert distill_config(*preset, "--policy", "mine").agent.choice == SavedPolicy("mine")
    file = tmp_path / "file.yaml"
    file.write_text("agent: sac\nagent_options: {gamma: 0.5}\naround: lskd\naround_options: {tau: 3}\n")
    assert distill_config("--config", str(file)).agent.choice.label == "sac-around-lskd"
    other = distill_config("--config", str(file), "--agent", "ppo").agent
    assert (other.agent_options, other.around) == ({}, "lskd")
    assert distill_config("--config", str(file), "--rule", "linear").agent.choice == RuleChoice("linear", {}, 4.0)
    assert distill_config("--config", str(file), *preset).agent.choice.label == "sac-around-lskd"
    assert laid_over({"rule": "lskd", "rule_options": {"tau": 2}}, {"rule": "lskd", "epochs": 3})["rule_options"]


def test_former_names_go_on_working(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"sequence_phases": 4, "sequence_first_share": 0.25}))
    for arguments in (
        ("--sequence-phases", "4", "--sequence-first-share=0.25"),
        ("--config", str(tmp_path / "old.json")),
    ):
        curriculum = distill_config(*arguments).run.curriculum
        assert (curriculum.curriculum_phases, curriculum.curriculum_first_share) == (4, 0.25)
    compare, train = parse(["compare", "--executor", "sequence"]), parse(["train-agent", "--run-mode=sequence"])
    assert isinstance(compare, CompareConfig)
    assert isinstance(train, TrainAgentConfig)
    assert (compare.comparison.executor, train.training.run_mode) == ("serial", "serial")


def test_settings_have_the_hash_that_they_had_under_former_names() -> None:
    settings = distill_config("--curriculum-phases", "4").settings()
    former = {name.replace("curriculum_", "sequence_"): value for name, value in settings.items()}
    assert {"curriculum_phases", "curriculum_first_share"} <= settings.keys()
    assert config_hash(settings) == config_hash(former)


def test_values_in_files_are_read_as_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(
        "learning_rate: 1e-3\nfixed_temperature: 4\ntemperature_min: 1\nfeatures: progress\n"
        "method_options: {beta: 1e-2}\n"
    )
    config = distill_config("--config", str(file))
    given = distill_config(
        *("--learning-rate", "1e-3", "--fixed-temperature", "4", "--temperature-min", "1", "--features", "progress"),
        *("--method-options", "beta", "1e-2"),
    )
    assert json.dumps(config.settings()) == json.dumps(given.settings())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 3.5", "epochs must be a whole number, not 3.5"),
        ("epochs: true", "epochs must be a whole number, not True"),
        ("explore: 1", "explore must be True or False, not 1"),
        ("temperature_min: true", "temperature min must be a number or text, not True"),
        ("method_options: 3", "method options must be pairs of a name and a value, not 3"),
        ("uncertain_ranks: [0.1]", "uncertain ranks must be 2 values, not 1"),
        ("schedule: cosin", "unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ("probe_size: 0", "probe size must be at least 1 image, not 0"),
        ("policy: a\nrule: fixed", "--policy and --rule exclude each other"),
    ],
)
def test_wrong_values_in_files_are_told(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.yaml").write_text(content)
    assert main(["distill", "--config", str(tmp_path / "file.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_keeps_its_settings_and_refuses_others(tmp_path: Path) -> None:
    stored: dict[str, Any] = distill_config("--agent", "ppo", "--epochs", "7", "--milestones", "0.5").settings()
    stored["sequence_phases"] = stored.pop("curriculum_phases")  # as runs of before have it
    (tmp_path / CONFIG_FILE).write_text(json.dumps(stored))
    resume = ("--resume", "--out", str(tmp_path))
    config = distill_config(*resume, "--epochs", "7", "--no-progress")
    assert (config.run.recipe.epochs, config.run.recipe.milestones, config.agent.agent) == (7, (0.5,), "ppo")
    assert not config.output.progress
    for options in (("--epochs", "120"), ("--agent", "sac"), ("--no-explore",)):
        with pytest.raises(UsageError, match=r"but the run in .* was started with"):
            distill_config(*resume, *options)


def test_a_teachers_defaults_are_its_own() -> None:
    config = parse(["teacher"])
    assert isinstance(config, TeacherConfig)
    assert (config.training.precision, config.training.optimizer, config.recipe().model) == (
        "auto",
        "adam",
        "digits_cnn",
    )


def test_an_unforeseen_error_is_a_line_with_the_file_of_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(arguments: list[str]) -> int:
        raise KeyError("a\nname")

    monkeypatch.setattr("experiments.cli._run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["bench"]) == 3
    told = capsys.readouterr().err
    (log,) = tmp_path.glob("rlkd-error-*.log")
    assert told.startswith("rlkd: error: KeyError: ")
    assert told.count("\n") == 1
    assert str(log) in told
    assert "Traceback (most recent call last)" in log.read_text()
    assert main(["bench", "--debug"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def test_names_that_are_no_text_are_told_with_escapes(tmp_path: Path) -> None:
    script = f"""
import os, sys
from experiments.cli import main
sys.exit(main(["report", os.fsdecode({os.fsencode(tmp_path)!r} + b"/\\xff\\xfe")]))
"""
    ended = run_python(script, tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.endswith("\\udcff\\udcfe does not exist\n")
