"""Stock agents of stable-baselines3 on the environments, and how policies and states get out of them."""

from typing import TYPE_CHECKING

from rlkd_env.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from agents.sb3.checkpoint import agent_state as agent_state, load_agent_state as load_agent_state
    from agents.sb3.export import export_coefficient_policy as export_coefficient_policy, export_policy as export_policy
    from agents.sb3.families import AGENTS as AGENTS
    from agents.sb3.make import continue_from as continue_from, make_agent as make_agent
    from agents.sb3.monitor import RunMonitor as RunMonitor
    from agents.sb3.threads import HostThreads as HostThreads
    from agents.sb3.vec_env import VectorEnvAdapter as VectorEnvAdapter
    from agents.sb3.wrapping import as_vec_env as as_vec_env
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
