"""The flow map of Gaussian data in closed form, with whatever the objectives need around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchrl_gtp.flow_map import FlowMapTimes, NoiseLevels

MEAN, STD = 0.3, 0.4


class GaussianFlowMap(nn.Module):
    """The exact map for data ~ N(MEAN, STD^2), off by ``error * t`` in its end point."""

    def __init__(self, error: float = 0.0):
        super().__init__()
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))
        self.register_buffer("sigma_data", torch.tensor(STD, dtype=torch.float64))
        self.noise_levels = NoiseLevels(sigma_max=10.0)

    def endpoint(self, action_t, t, s, condition=None):
        gain = ((STD**2 + s**2) / (STD**2 + t**2)).sqrt()
        posterior = MEAN + STD**2 / (STD**2 + t**2) * (action_t - MEAN)
        apart = torch.where(t > s, 1 - s / t, 1.0)
        reached = MEAN + gain * (action_t - MEAN)
        endpoint = torch.where(t > s, (reached - (s / t) * action_t) / apart, posterior)
        return endpoint + self.error * t

    def denoise(self, action_t, t, condition=None):
        return self.endpoint(action_t, t, t)

    def forward(self, action_t, t, s, condition=None):
        ratio = torch.where(t > 0, s / torch.where(t > 0, t, 1.0), 1.0)
        return ratio * action_t + (1 - ratio) * self.endpoint(action_t, t, s)


class FrozenMap:
    """A teacher that is the given map."""

    def __init__(self, flow_map):
        self.flow_map = flow_map

    def __call__(self, action_t, t, s, condition):
        return self.flow_map(action_t, t, s, condition).detach()

    def endpoint(self, action_t, t, s, condition):
        return self.flow_map.endpoint(action_t, t, s, condition).detach()

    def through(self, action_t, t, s, condition):
        parameters = [p.requires_grad_(False) for p in self.flow_map.parameters()]
        reached = self.flow_map(action_t, t, s, condition)
        for parameter in parameters:
            parameter.requires_grad_(True)
        return reached

    def denoise(self, action_t, t, condition):
        return self.flow_map.denoise(action_t, t, condition).detach()


class GivenTimes:
    """A sampler that gives the same times for every sample."""

    def __init__(self, t: float, u: float, s: float):
        self.times = t, u, s

    def __call__(self, uniform, progress, noise_levels):
        return FlowMapTimes(*(torch.full_like(uniform[..., :1], time) for time in self.times))

    def start(self, uniform, progress, noise_levels):
        return torch.full_like(uniform, self.times[0])


def on_the_trajectory(t: float, num_samples: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Clean actions and noise whose line is the tangent of the exact trajectory at ``a_t``.

    Averaged over all data that may have led to ``a_t`` the line has this direction: with it an
    objective whose expectation is right vanishes for each sample.
    """
    torch.manual_seed(0)
    action_t = MEAN + (STD**2 + t**2) ** 0.5 * torch.randn(num_samples, 2, dtype=torch.float64)
    level = torch.full((num_samples, 1), t, dtype=torch.float64)
    action = GaussianFlowMap().denoise(action_t, level).detach()
    return action, (action_t - action) / t, action_t
