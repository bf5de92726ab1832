"""From a trained stable-baselines3 model to a plain policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from agents.learned.coefficient_policy import CoefficientPolicy
from agents.learned.files import Affine
from agents.learned.sampling_policy import Constant, Exponential, SamplingPolicy
from agents.learned.temperature_policy import TemperaturePolicy
from rlkd_env.errors import UsageError
from rlkd_env.instances.actions import ActionMap, ResidualMap
from rlkd_env.instances.coefficients import CoefficientRule


def export_policy(
    agent: BaseAlgorithm, features: Sequence[str], action_map: ActionMap | ResidualMap
) -> TemperaturePolicy:
    """Copy an agent's policy, whose temperatures are those of ``agent.predict(observation, deterministic=True)``.

    Args:
        agent: any agent of :data:`agents.sb3.families.AGENTS` that does not remember, trained on states of these
            features.
        features: names of the features, in the order of the observation.
        action_map: the map from the agent's actions to temperatures.

    Raises:
        UsageError: if the agent's network is of a kind that cannot be exported.
    """
    return TemperaturePolicy(_network(agent), features, action_map)


def export_sampling_policy(
    agent: BaseAlgorithm, features: Sequence[str], action_map: ActionMap | ResidualMap, seed: int
) -> SamplingPolicy:
    """Copy an agent's policy with the noise by which the agent explores while it learns.

    Its actions are distributed like those of ``agent.predict(observation, deterministic=False)``; TD3 and DDPG, which
    have no distribution, explore by their action noise.

    Args:
        agent: any agent of :data:`agents.sb3.families.AGENTS` whose actions have a density, or TD3 and DDPG, trained on
            states of these features.
        features: names of the features, in the order of the observation.
        action_map: the map from the agent's actions to temperatures.
        seed: the seed of the noise, together with a run's step.

    Raises:
        UsageError: if the agent's network or its noise is of a kind that cannot be exported.
    """
    observation, (*mean, squash) = _observation_layers(agent), _actor_layers(agent)
    policy = cast(Any, agent.policy)
    actor: Any = getattr(policy, "actor", None)
    if hasattr(actor, "latent_pi"):  # SAC, TQC, CrossQ
        deviation = [actor.latent_pi, actor.log_std, nn.Hardtanh(-20.0, 2.0), Exponential()]
    elif actor is not None:  # TD3, DDPG: the squashing comes before the noise, which is clipped
        mean, squash = [*mean, squash], nn.Hardtanh()
        noise = getattr(agent, "action_noise", None)
        noise = getattr(noise, "base_noise", noise)  # for many slots it is vectorised once learning has begun
        if not isinstance(noise, NormalActionNoise):
            raise UsageError("a policy that draws its actions needs an agent with normal action noise")
        deviation = [Constant(torch.as_tensor(noise._sigma))]
    elif isinstance(getattr(policy, "action_dist", None), DiagGaussianDistribution):  # PPO, A2C, TRPO
        deviation = [Constant(policy.log_std.exp())]
    else:
        kind = type(getattr(policy, "action_dist", policy)).__name__
        raise UsageError(f"a policy that draws its actions needs normal ones, not {kind}: choose acting mean")
    layers = (_copies([*observation, *mean]), _copies([*observation, *deviation]))
    return SamplingPolicy(*layers, deepcopy(squash).cpu(), features, action_map, seed)


def export_coefficient_policy(agent: BaseAlgorithm, rule: CoefficientRule, scale: float) -> CoefficientPolicy:
    """Copy the policy of an agent trained on a :class:`~rlkd_env.envs.coefficient_env.CoefficientVectorEnv`.

    Its coefficients are ``scale`` times ``agent.predict(observation, deterministic=True)``; rule and scale are those of
    the environment.
    """
    scales = torch.full((rule.num_coefficients,), scale)
    return CoefficientPolicy([*_network(agent), _affine(scales, torch.zeros_like(scales))], rule)


def _network(agent: BaseAlgorithm) -> list[nn.Module]:
    """Return copies of the layers from the observation to the deterministic action in ``[-1, 1]``."""
    return _copies([*_observation_layers(agent), *_actor_layers(agent)])


def _copies(blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Return copies of the layers of all blocks on the CPU."""
    return [deepcopy(_plain(layer)).cpu() for block in blocks for layer in _flatten(block)]


def _observation_layers(agent: BaseAlgorithm) -> list[nn.Module]:
    """The observation normalisation of a ``VecNormalize``, if it has one."""
    normalizer = agent.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_obs:
        return []
    statistics = cast(RunningMeanStd, normalizer.obs_rms)
    mean, variance = (torch.as_tensor(value, dtype=torch.float64) for value in (statistics.mean, statistics.var))
    deviation = (variance + normalizer.epsilon).sqrt()
    return [_affine(1.0 / deviation, -mean / deviation), nn.Hardtanh(-normalizer.clip_obs, normalizer.clip_obs)]


def _actor_layers(agent: BaseAlgorithm) -> list[nn.Module]:
    """The blocks between observation and deterministic action, the squashing included."""
    policy = agent.policy
    actor = getattr(policy, "actor", None)
    extractor = policy.features_extractor if actor is None else actor.features_extractor
    if not isinstance(extractor, FlattenExtractor):
        raise UsageError(f"a policy with the features extractor {type(extractor).__name__} cannot be exported")
    if hasattr(policy, "lstm_actor"):
        raise UsageError("a policy that remembers is no function of a state, and cannot be exported")
    if not hasattr(policy, "mlp_extractor") and actor is None:  # ARS, whose policy is squashed by its last layer
        return [policy.action_net, nn.Hardtanh()]  # type: ignore[list-item]
    if actor is None:  # PPO, A2C, TRPO
        squash: nn.Module = nn.Tanh() if policy.squash_output else nn.Hardtanh()
        return [policy.mlp_extractor.policy_net, policy.action_net, squash]  # type: ignore[list-item, union-attr]
    if hasattr(actor, "latent_pi"):  # SAC, TQC, CrossQ
        return [actor.latent_pi, actor.mu, nn.Tanh()]
    return [actor.mu]  # TD3, DDPG: ends in its own Tanh


def _flatten(block: nn.Module) -> Iterator[nn.Module]:
    if isinstance(block, nn.Sequential):
        for layer in block:
            yield from _flatten(layer)
    elif not isinstance(block, nn.Identity | nn.Flatten):
        yield block


def _plain(layer: Any) -> nn.Module:
    """Replace CrossQ's batch renormalisation by what it is at prediction: a fixed affine map."""
    if not type(layer).__name__.startswith("BatchRenorm"):
        return layer
    scale = layer.scale.detach().double() / (layer.ra_var.double() + layer.eps).sqrt()
    shift = layer.bias.detach().double() - layer.ra_mean.double() * scale
    return _affine(scale, shift)


def _affine(scale: torch.Tensor, shift: torch.Tensor) -> Affine:
    layer = Affine(len(scale))
    layer.load_state_dict({"scale": scale.float(), "shift": shift.float()})
    return layer
