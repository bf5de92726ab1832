"""Rooms that export their names without importing the modules that define them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for package in ("rlkd_env", "agents", "experiments")
    for path in sorted((ROOT / package).rglob("__init__.py"))
    if "lazy_exports(__name__)" in path.read_text()
]


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_is_there_and_hides_no_module(room: str) -> None:
    package = importlib.import_module(room)
    assert package.__doc__
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
        assert not (Path(str(package.__file__)).parent / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = package.nonsense


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_neither_torch_nor_what_only_side_jobs_need() -> None:
    heavy = "torch torchvision sklearn scipy matplotlib PIL pycocotools stable_baselines3 tensorboard pandas"
    code = f"import sys, rlkd_env, rlkd_env.methods, rlkd_env.runs; print(set({heavy.split()}) & set(sys.modules))"
    assert run(code) == "set()\n"


@pytest.mark.parametrize("imports", ["import gymnasium, rlkd_env", "import rlkd_env, gymnasium"])
def test_importing_the_package_registers_the_environments(imports: str) -> None:
    assert "True" in run(f"{imports}; print('rlkd/Digits-v0' in gymnasium.registry)")


@pytest.mark.slow
def test_without_optional_packages_the_loss_rules_and_policies_work() -> None:
    optional = (
        "torchvision stable_baselines3 sb3_contrib tensorboard sklearn scipy threadpoolctl tyro tqdm rich matplotlib "
        "jinja2 yaml pycocotools PIL cma ray pandas"
    )
    run(f"""
import sys
for name in {optional.split()}:
    sys.modules[name] = None
import torch, rlkd_env
from rlkd_env.instances import InstanceOutputs, Temperature
from rlkd_env.methods import kd_loss
from agents.rules import create_rule
from agents.learned import load_policy
teacher, labels = torch.randn(8, 10), torch.randint(10, (8,))
student = torch.randn(8, 10, requires_grad=True)
outputs = InstanceOutputs(student.detach(), teacher, labels, 0.5)
for policy in (create_rule("lskd"), create_rule("fixed"), load_policy("pretrained")):
    loss = kd_loss(student, teacher, policy(outputs)).mean()
    loss.backward()
    assert loss.isfinite()
""")
