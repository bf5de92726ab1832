"""Temperatures in a distillation loop of your own: plain PyTorch, with a rule or a learned policy.

Run ``python examples/own_loop.py``; ``--small`` makes a few epochs.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from agents.learned import load_policy
from agents.rules import create_rule
from rlkd_env.instances import InstanceOutputs, Policy

EPOCHS = 5 if "--small" in sys.argv else 120
BATCH = 50


def main() -> None:
    """Distil the digits with a fixed temperature, with LSKD, annealing, and with the policy of the package."""
    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(classes)
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    train(teacher, images[:1000], labels[:1000])
    policies: dict[str, Policy] = {
        "T = 4": create_rule("fixed", {"temperature": 4}),
        "LSKD": create_rule("lskd", {"tau": 2}),
        "annealing": load_policy("anneal"),
        "policy of the package": load_policy("pretrained"),
    }
    for name, policy in policies.items():
        torch.manual_seed(1)
        student = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        distil(student, teacher, policy, images[:300], labels[:300])
        accuracy = (student(images[1000:]).argmax(dim=-1) == labels[1000:]).float().mean()
        print(f"{name}: {100 * accuracy:.1f} %")


def train(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train a teacher; any trained network will do."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()


def distil(student: nn.Module, teacher: nn.Module, policy: Policy, images: Tensor, labels: Tensor) -> None:
    """Train a student on labels and teacher, each instance at the temperature that the policy chooses."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            student_logits = student(images[batch])
            with torch.no_grad():
                teacher_logits = teacher(images[batch])
            outputs = InstanceOutputs(student_logits, teacher_logits, labels[batch], progress=epoch / EPOCHS)
            chosen = policy(outputs)
            kl = F.kl_div(
                F.log_softmax(student_logits / chosen.student[:, None], dim=-1),
                F.log_softmax(teacher_logits / chosen.teacher[:, None], dim=-1),
                reduction="none",
                log_target=True,
            ).sum(dim=-1)
            # scale() multiplies by T², or by the factor that a rule brings of its own
            loss = 0.1 * F.cross_entropy(student_logits, labels[batch]) + 0.9 * chosen.scale(kl).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
