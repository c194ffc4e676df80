"""didiff: diffusion models and guidance, small enough to read in an evening.

xt = t.signal * x0 + t.noise * eps. Read on in `process`, `schedules`, `samplers`.
"""

from . import guidance, mixtures, networks, samplers, schedules, sde
from .denoiser import TARGETS, Denoiser, loss
from .mixtures import CovarianceMixture, Mixture
from .process import NoiseLevel, Prediction, add_noise, from_eps, from_x0
from .samplers import State, ddim, ddpm, dpm_solver_2m, heun, initial_noise, last, probability_flow
from .schedules import (
    DDPMSchedule,
    exploding,
    grid,
    karras_levels,
    log_snr_grid,
    straight,
    trigonometric,
)

__all__ = [
    "TARGETS",
    "CovarianceMixture",
    "DDPMSchedule",
    "Denoiser",
    "Mixture",
    "NoiseLevel",
    "Prediction",
    "State",
    "add_noise",
    "ddim",
    "ddpm",
    "dpm_solver_2m",
    "exploding",
    "from_eps",
    "from_x0",
    "grid",
    "guidance",
    "heun",
    "initial_noise",
    "karras_levels",
    "last",
    "log_snr_grid",
    "loss",
    "mixtures",
    "networks",
    "probability_flow",
    "samplers",
    "schedules",
    "sde",
    "straight",
    "trigonometric",
]
