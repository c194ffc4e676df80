"""Stochastic differential equations dx = drift(x, u) du + diffusion(u) dW, both ways in time."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .process import floats, randn_like, wide
from .schedules import Schedule


class SDE(NamedTuple):
    """dx = drift(x, u) du + diffusion(u) dW.

    drift: (x (B, *d), u ()) -> (B, *d); diffusion: u () -> () (a standard deviation per square
    root of time, the same in every direction and for every x).
    Source: Song et al. 2021b, eq. 5; DS-12.
    """

    drift: Callable[[Tensor, Tensor], Tensor]
    diffusion: Callable[[Tensor], Tensor]


def wiener(times: Tensor, paths: int, generator=None) -> Tensor:
    """Wiener paths at `times` (N,), starting at 0 at times[0]. Returns (paths, N).

    An increment over dt has *variance* dt, so standard deviation sqrt(dt).
    Raises ValueError unless the times increase. Source: DS-15, E-36.
    """
    times = _increasing(times)
    z = randn_like(times.new_empty(paths, len(times) - 1), generator)
    increments = times.diff().sqrt() * z
    return torch.cat([times.new_zeros(paths, 1), increments.cumsum(1)], 1)


def simulate(sde: SDE, x: Tensor, times: Tensor, generator=None) -> Iterator[Tensor]:
    """Euler-Maruyama: x + drift * du + diffusion * sqrt(du) * z. Yields x (B, *d) at every time.

    Raises ValueError unless the times increase (a reversed SDE runs in increasing time too).
    Source: DS-19.
    """
    return _simulate(sde, floats(x), _increasing(times), generator)


@torch.no_grad()
def _simulate(sde: SDE, x: Tensor, times: Tensor, generator) -> Iterator[Tensor]:
    yield x
    for now, then in pairwise(times):
        du = then - now
        z = randn_like(x, generator)
        x = x + sde.drift(x, now) * du + sde.diffusion(now) * du.sqrt() * z
        yield x


def _increasing(times: Tensor) -> Tensor:
    times = floats(torch.as_tensor(times))
    if times.ndim != 1 or not (times.diff() > 0).all():
        raise ValueError("times must be one increasing row of numbers; to go back use reverse(sde)")
    return times


def schedule_sde(schedule: Schedule) -> SDE:
    """The SDE whose marginals are those of a schedule: drift = f(u) x, diffusion = g(u), with

    f = d log signal / du   and   g^2 = d noise^2 / du - 2 f noise^2.

    For a DDPM table f = -beta / 2 and g = sqrt(beta) per step, up to O(beta^2) (u counts T steps).
    Raises ValueError, when asked, where signal = 0: the drift is infinite there.
    Source: Kingma et al. 2021, app. A; Song et al. 2021b, sec. 3.4; DS-39.
    """

    def moments(u: Tensor) -> tuple[Tensor, Tensor]:
        signal, noise = schedule(u)
        return signal.log(), noise**2

    def rates(u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False):  # where nothing could be differentiated
            # at u = 0 the slope of noise is infinite, though that of its square is not
            u = wide(floats(u)).clamp(min=1e-9)
            one = torch.ones_like(u)
            (_, variance), (f, slope) = torch.autograd.functional.jvp(moments, u, one)
        if not f.isfinite().all():
            raise ValueError(f"the drift at u = {u:g} is infinite: stay a little below 1 (0.99)")
        return f, (slope - 2 * f * variance).sqrt()

    return SDE(lambda x, u: rates(u)[0] * x, lambda u: rates(u)[1])


def reverse(sde: SDE, score: Callable[[Tensor, Tensor], Tensor], end: float = 1.0) -> SDE:
    """The same process backwards, as an SDE in the increasing time tau = end - u:

    dx = [-drift(x, u) + diffusion(u)^2 score(x, u)] dtau + diffusion(u) dW,   u = end - tau.

    score: (x, u) -> grad log p_u(x), (B, *d). W is a new Wiener process.
    Source: Anderson 1982; DS-23, E-38.
    """

    def drift(x: Tensor, tau: Tensor) -> Tensor:
        u = end - tau
        return sde.diffusion(u) ** 2 * score(x, u) - sde.drift(x, u)

    return SDE(drift, lambda tau: sde.diffusion(end - tau))
