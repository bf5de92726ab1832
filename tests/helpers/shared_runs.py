"""Started by torchrun: the same runs in several processes and in one, and how far apart they end.

Starting processes takes longer than the runs, so all that needs no process' death is done by one start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.learned.temperature_policy import TemperaturePolicy
from agents.rules.create import RuleSetting, create_rule
from agents.rules.simple import FixedTemperature
from experiments.cli import main as run_command
from experiments.session.distributed import end_at_once
from rlkd_env.envs.vector_env import KDVectorEnv
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.temperature import Policy, Temperature
from rlkd_env.runs.build import build_run
from rlkd_env.runs.config import RunConfig
from rlkd_env.runs.distributed.processes import Processes
from rlkd_env.runs.distributed.run import DistributedRun
from rlkd_env.runs.run import DistillationRun
from rlkd_env.sampling.settings import Exploration
from rlkd_env.utils.choices import PAPER_FEATURES
from rlkd_env.wrappers import CalibratedReward
from rlkd_env.wrappers.exploration import explore

CASES: dict[str, dict[str, Any]] = {
    "plain": {"student": "mlp12"},
    "uneven probe, delayed reward": {"student": "mlp12", "probe_size": 101, "reward_interval": 3},
    "reward from the batch": {"student": "digits_cnn", "reward": "train_progress", "batch_size": 50},
    "parts of the probe": {"student": "mlp12", "reward": "probe_turns", "batch_size": 16},
    "batch norm": {"student": "cnn4", "reward": "probe_accuracy"},
    "two views": {"student": "cnn4", "method": "crld"},
    "trained method": {"student": "digits_cnn", "method": "vid"},
    "changed student": {"student": "cnn4", "teacher_model": "cnn8", "method": "simkd"},
    "two heads": {"student": "deit64_patch4", "method": "deit"},
    "sequence": {"student": "mlp12", "sequence_phases": 3},
    "exploration": {"student": "mlp12"},
    "policy": {"student": "mlp12"},
    "policy around a rule": {"student": "mlp12"},
    "equal gradients": {"student": "mlp12", "equal_gradients": True},
    "rule that learns": {"student": "mlp12"},
    "rule through the student": {"student": "digits_cnn"},
    "rule that draws": {"student": "mlp12"},
    "memory": {"student": "mlp12", "method": "crd", "method_options": {"negatives": 32}},
    "dropout": {"student": "vgg8", "method": "cross_entropy"},
}


EXACT = "float32"
"""Number format of all runs; bfloat16 rounds by more than a share of a batch and the whole may differ by."""
TOLERANCE = 1e-5
"""Largest difference of a weight after a few dozen updates; sums in another order have left 4e-7."""
SEEDS = (3, 5, 7)
"""Seeds of which one has to do: now and then a rounding makes a ReLU pass what it would not have passed, and the runs
part."""
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "rule that learns": ("ctkd", {"scope": "instance", "curriculum_epochs": 0}),
    "rule through the student": ("dtkd", {}),
    "rule that draws": ("random", {}),
}
QUICK = ("--agent", "ppo", "--warmup-epochs", "2", "--no-progress", "--device", "cpu", "--precision", EXACT)
FREE = ("--around", "None")
PAPER = (*FREE, "--student", "mlp12", "--explore-first-epoch", "8", "--explore-interval", "4", "--learn-interval", "3")
COMMANDS: dict[str, tuple[str, ...]] = {
    "default": (*PAPER, "--epochs", "12"),
    "uniform": (
        *FREE,
        "--student",
        "digits_cnn",
        "--epochs",
        "5",
        "--calibrator",
        "uniform",
        "--agent-options",
        "n_steps",
        "8",
    ),
    "around": ("--around", "lskd"),
    "indivisible": (*FREE, "--batch-size", "33"),
}


def make(name: str, processes: Processes | None) -> DistillationRun:
    settings = dict(CASES[name])
    student = dropout_student if settings["student"] == "vgg8" else None
    config = RunConfig.from_keywords(device="cpu", epochs=4, precision=EXACT, **settings)
    run = build_run(config, student=student, processes=processes)
    if name in RULES:
        rule, options = RULES[name]
        run.create_policy = lambda seed: create_rule(rule, options, RuleSetting(num_classes=10, seed=seed))
    if name == "exploration":
        explore(run, Exploration(first_epoch=2, interval=1))
    return run


def dropout_student() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 10))


def policy_of(name: str, run: DistillationRun) -> Policy | None:
    if name in RULES:
        return None
    if not name.startswith("policy"):
        return FixedTemperature(4.0)
    torch.manual_seed(0)
    bounds = run.temperature_range
    action_map = ActionMap(bounds) if name == "policy" else ResidualMap(create_rule("lskd"), bounds)
    return TemperaturePolicy([nn.Linear(4, 1), nn.Tanh()], PAPER_FEATURES, action_map)


def exercise(name: str, run: DistillationRun, seed: int) -> dict[str, Tensor]:
    """Use everything that the first process may: chosen temperatures, a policy, a restart, a snapshot, a look."""
    states, rewards = [run.reset(seed)], []
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        result = run.step(Temperature.shared(1.0 + 7.0 * torch.rand(run.batch_size, generator=generator)))
        states.append(result.state)
        rewards.append(result.reward)

    for _ in range(3):
        step()
    run.advance(policy_of(name, run), 6)
    snapshot = run.state_dict()
    run.reset(seed + 1)
    states.append(run.load_state_dict(snapshot))
    step()
    states.append(run.observe())
    rewards.append(run.evaluate_validation().loss)
    values = [*run.student.state_dict().values(), *(run.policy.state_dict().values() if run.policy else [])]
    student = torch.cat([value.detach().flatten().float() for value in values])
    return {"student": student, "states": torch.cat(states), "rewards": torch.stack(rewards)}


def compare(name: str, processes: Processes) -> dict[str, Any]:
    run = make(name, processes)
    assert isinstance(run, DistributedRun)
    told: dict[str, Any] = {}
    if processes.is_first:
        alone = make(name, None)
        for seed in SEEDS:
            ours, theirs = exercise(name, run, seed), exercise(name, alone, seed)
            told = {key: float((ours[key] - theirs[key]).abs().max()) for key in ours}
            if max(told.values()) < TOLERANCE:
                break
        run.stop()
        told["refused"] = [
            refusal(lambda: CalibratedReward(KDVectorEnv(run=run), "gradient")),
            refusal(lambda: KDVectorEnv(run=run, num_runs=2)),
        ]
    else:
        run.follow()
    modules = [module for module in (run.student, run.method, run.policy) if module is not None]
    values = [value.flatten().double() for module in modules for value in module.state_dict().values()]
    everyone = processes.gather(torch.cat(values)[None])
    told["processes_differ"] = float((everyone - everyone[0]).abs().max())
    return told


def refusal(use: Callable[[], Any]) -> str:
    try:
        use()
    except UsageError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    """Write into the folder how far runs end from each other, and the runs of agents by their names."""
    processes = Processes.join("cpu")
    told = {name: compare(name, processes) for name in CASES}
    rank = processes.rank
    processes.leave()
    if rank == 0:
        (folder / "told.json").write_text(json.dumps(told))
    commands = {name: ["--out", str(folder / name), *QUICK, *options] for name, options in COMMANDS.items()}
    codes = {name: run_command(["distill", *arguments]) for name, arguments in commands.items()}
    (folder / f"codes{rank}.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_at_once(0)
