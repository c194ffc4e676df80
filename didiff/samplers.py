"""Samplers: generators that walk a list of noise levels and yield one State for each of them.

All make the same move, x = add_noise(x0, eps, next level), with a better and better guess of the
pair (x0, eps). Plots, sliders, progress bars and early stopping are consumers of the walk:
`*path, end = ddim(denoiser, x, levels)`. A rising list of levels walks upwards, data to noise.

They go from level t to level s, as the lectures do, and divide by `noise`, never by `signal`, so
that a walk may start at exactly pure noise.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .process import NoiseLevel, Prediction, add_noise, floats, from_x0, randn_like
from .schedules import check_monotone


class State(NamedTuple):
    """One stop of a walk: x (B, *d) at level t, and what the denoiser makes of it there.

    x == add_noise(x0, eps, t). At noise = 0 nothing is asked: x0 is x / signal, and eps is 0.
    """

    x: Tensor
    t: NoiseLevel
    x0: Tensor
    eps: Tensor


def initial_noise(shape: tuple, t: NoiseLevel, generator=None, dtype=None) -> Tensor:
    """Pure noise at the first level of a walk, noise * N(0, I), of `shape` (B, *d)."""
    return t.noise * torch.randn(shape, generator=generator, dtype=dtype)


def last(states: Iterator[State]) -> Tensor:
    """The final x (B, *d) of a walk."""
    return deque(states, maxlen=1)[0].x


def sampler(walk: Callable) -> Callable:
    """Check the levels when a walk is asked for, before any work, and walk without gradients."""

    @functools.wraps(walk)
    def checked(denoiser, x: Tensor, levels: list[NoiseLevel], *args, **options):
        check_monotone(levels)
        return torch.no_grad()(walk)(denoiser, floats(x), levels, *args, **options)

    return checked


def look(denoiser, x: Tensor, t: NoiseLevel) -> State:
    """Ask the denoiser about x at level t. A wrapper may have changed x: then x follows."""
    if t.noise == 0:
        return State(x, t, x / t.signal, torch.zeros_like(x))
    guess = denoiser(x, t)
    return State(add_noise(guess.x0, guess.eps, t), t, *guess)


@sampler
def ddim(denoiser, x, levels, eta: float = 0.0, generator=None) -> Iterator[State]:
    """x_s = signal_s * x0 + noise_s * eps, where a share of eps is redrawn if eta > 0.

    x (B, *d) at levels[0]. eta = 0 is deterministic (Euler's method on the probability-flow ODE);
    eta = 1 is DDPM. Upwards, eta = 0 encodes, and eta = 1 is the forward process itself.

    Raises ValueError for eta outside [0, 1] or levels that are not monotone.
    Source: Song et al. 2021a, eq. 12 and 16; L6-30, L22-32. Lesson: 07_samplers.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta}: choose a number from 0 (deterministic) to 1 (DDPM)")
    for t, s in pairwise(levels):
        state = look(denoiser, x, t)
        yield state
        eps = state.eps
        if eta:
            new = eta * renewed(t, s)
            eps = (1 - new**2).sqrt() * eps + new * randn_like(x, generator)
        x = add_noise(state.x0, eps, s)
    yield look(denoiser, x, s)


@sampler
def ddpm(denoiser, x, levels, variance: str = "posterior", generator=None) -> Iterator[State]:
    """Ancestral sampling: the mean of q(x_s | x_t, x0) at the predicted x0, plus fresh noise.

    x (B, *d) at levels[0]. variance: "posterior" (the lectures' beta tilde) or "beta". No noise is
    added on the way to noise = 0. Upwards, both are the forward process itself.

    Raises ValueError for another variance or levels that are not monotone.
    Source: Ho et al. 2020, alg. 2 and sec. 3.2; L6-05, L6-06. Lesson: 07_samplers.
    """
    if variance not in ("posterior", "beta"):
        raise ValueError(f"variance = {variance!r}: choose 'posterior' or 'beta'")
    for t, s in pairwise(levels):
        state = look(denoiser, x, t)
        yield state
        new = renewed(t, s)
        x = add_noise(state.x0, (1 - new**2).sqrt() * state.eps, s)
        if s.noise > 0:
            wide = max(t.noise, s.noise) if variance == "beta" else s.noise
            x = x + wide * new * randn_like(x, generator)
    yield look(denoiser, x, s)


@sampler
def heun(denoiser, x, levels) -> Iterator[State]:
    """Look ahead with DDIM, then move by the mean of the two guesses. Second order, two calls.

    x (B, *d) at levels[0]. With signal = 1 it is the deterministic sampler of Karras et al.
    Raises ValueError for levels that are not monotone.
    Source: Karras et al. 2022, alg. 1. Lesson: 07_samplers.
    """
    for t, s in pairwise(levels):
        here = look(denoiser, x, t)
        yield here
        there = look(denoiser, add_noise(here.x0, here.eps, s), s) if s.noise > 0 else here
        x0, eps = (here.x0 + there.x0) / 2, (here.eps + there.eps) / 2
        x = here.x + add_noise(x0, eps, s) - add_noise(x0, eps, t)
    yield look(denoiser, x, s)


@sampler
def dpm_solver_2m(denoiser, x, levels) -> Iterator[State]:
    """DPM-Solver++(2M): move with the x0 extrapolated from the last two guesses. Second order.

    x (B, *d) at levels[0]; one call a step. Raises ValueError for levels that are not monotone.
    Source: Lu et al. 2022b, alg. 2; L22-46. Lesson: 07_samplers.
    """
    before = None
    for t, s in pairwise(levels):
        state = look(denoiser, x, t)
        yield state
        guess = Prediction(state.x0, state.eps)
        if before is not None and s.noise > 0 and s.signal > 0:  # both ends are infinitely far away
            ratio = (t.sigma / s.sigma).log() / (before.t.sigma / t.sigma).log()
            guess = from_x0(state.x, t, state.x0 + ratio / 2 * (state.x0 - before.x0))
        x, before = add_noise(guess.x0, guess.eps, s), state
    yield look(denoiser, x, s)


@sampler
def probability_flow(denoiser, x, levels) -> Iterator[State]:
    """The probability-flow ODE, dz/dphi = cos(phi) eps - sin(phi) x0, by a third-order method.

    z = x / sqrt(signal^2 + noise^2) and phi is the angle of the level, so the velocity is finite
    at both ends. x (B, *d) at levels[0]; three calls a step, none of them at the next level. The
    levels in between have the size of the schedule, which a network that says the score must know.
    Raises ValueError for levels that are not monotone.
    Source: Song et al. 2021b, eq. 13; Ralston 1962 for the coefficients. Lesson: 07_samplers.
    """

    def velocity(z: Tensor, t: NoiseLevel) -> Tensor:
        return _turning(denoiser(_size(t) * z, t), t)

    for t, s in pairwise(levels):
        state = look(denoiser, x, t)
        yield state
        h, z = (s.clock - t.clock) * torch.pi / 2, state.x / _size(t)
        first = _turning(state, t)
        second = velocity(z + h / 2 * first, _between(t, s, 1 / 2))
        third = velocity(z + 3 * h / 4 * second, _between(t, s, 3 / 4))
        x = _size(s) * (z + h * (2 * first + 3 * second + 4 * third) / 9)
    yield look(denoiser, x, s)


def renewed(t: NoiseLevel, s: NoiseLevel) -> Tensor:
    """The part of eps that DDPM redraws from t to s: sqrt(1 - (sigma_s / sigma_t)^2).

    The lectures' tilde beta is (s.noise * renewed)^2, their beta is (t.noise * renewed)^2.
    """
    low, high = sorted((t.sigma, s.sigma))
    return (1 - (low / high) ** 2).sqrt()


def _size(t: NoiseLevel) -> Tensor:
    return (t.signal**2 + t.noise**2).sqrt()


def _turning(guess: State | Prediction, t: NoiseLevel) -> Tensor:
    """dz/dphi at level t."""
    return (t.signal * guess.eps - t.noise * guess.x0) / _size(t)


def _between(t: NoiseLevel, s: NoiseLevel, part: float) -> NoiseLevel:
    """The level whose angle is that part of the way from t to s, and whose size is the schedule's.

    (signal^2, noise^2) moves on the line from t to s, as it does where signal^2 + noise^2 or the
    signal keeps its value; on other schedules that is right to second order in the step.
    """
    start, end = (level.clock * torch.pi / 2 for level in (t, s))
    phi = start + part * (end - start)
    # (cos^2 phi - cos^2 start) / (cos^2 end - cos^2 start), without loss of digits
    share = (phi - start).sin() * (phi + start).sin() / ((end - start).sin() * (end + start).sin())
    size = torch.lerp(_size(t) ** -2, _size(s) ** -2, share).rsqrt()
    return NoiseLevel(size * phi.cos(), size * phi.sin())
