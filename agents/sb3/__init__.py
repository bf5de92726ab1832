"""Stock agents of stable-baselines3 on the environments, and how policies and states get out of them."""

from agents.sb3.export import export_policy
from agents.sb3.make import AGENTS, make_agent
from agents.sb3.vec_env import VectorEnvAdapter

__all__ = ["AGENTS", "VectorEnvAdapter", "export_policy", "make_agent"]
