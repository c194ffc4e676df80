"""Schedules: functions u in [0, 1] -> NoiseLevel, with u = 0 the data and u = 1 the noise.

Every convention about time lives here and nowhere else. A schedule says which levels lie between
data and noise; a *grid* is a plain list of levels, noise first, at which a sampler stops.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .process import NoiseLevel, floats, wide

Schedule = Callable[[Tensor], NoiseLevel]


# --- betas of the DDPM table: functions T -> (T,) ------------------------------------------------


def linear(T: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """beta_k rises linearly from first to last. Returns (T,). Source: Ho et al. 2020, sec. 4.

    The two numbers are meant for T = 1000: a hundred such steps leave more than half the signal.
    """
    return torch.linspace(first, last, T, dtype=torch.float64)


def lectures(T: int) -> Tensor:
    """Betas that walk the table of the lectures, linear(1000), in T steps. Returns (T,)."""
    whole = DDPMSchedule(1000, linear)
    if whole.T == T:
        return whole.beta  # to the last digit, which the way over logarithms rounds
    log_alpha_bar = 2 * whole(_line(0.0, 1.0, T)).signal.log()
    return -torch.expm1(log_alpha_bar.diff())


def cosine(T: int, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas of alpha_bar(u) ~ cos^2, cut at `max_beta` so that no step wipes out all signal.

    Returns (T,). Source: Nichol & Dhariwal 2021, eq. 17.
    """
    u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    alpha_bar = torch.cos((u + s) / (1 + s) * torch.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)


def constant(T: int, p: float = 0.01) -> Tensor:
    """beta_k = p for all k, the lecture's first example. Returns (T,). Source: DS-27."""
    return torch.full((T,), p, dtype=torch.float64)


class DDPMSchedule:
    """The table of the lectures: alpha_bar[k] = prod_{i <= k} (1 - beta_i), with alpha_bar[0] = 1.

    T: number of steps. betas: a function T -> (T,), or a tensor (T,), values strictly in (0, 1).
    The default is the lectures' curve in T steps, so that any T ends in nearly pure noise.
    `beta[k - 1]` is the lectures' beta_k, `alpha_bar` has T + 1 entries, so that no sampler needs
    a special last step. Called with u in [0, 1] it interpolates log alpha_bar between the entries
    (it then is the variance-preserving SDE with piecewise constant beta); `at(k)` reads the table.

    Raises ValueError if T < 1, or if the betas are not T numbers in (0, 1).
    Source: Ho et al. 2020, eq. 4; DS-42, E-01. Lesson: 03_forward_process.
    """

    def __init__(self, T: int = 1000, betas: Callable[[int], Tensor] | Tensor = lectures):
        if T < 1:
            raise ValueError(f"T = {T}: a schedule needs at least one step")
        self.T = T
        self.beta = (betas(T) if callable(betas) else torch.as_tensor(betas)).double()
        if self.beta.shape != (T,):
            raise ValueError(f"betas of shape {tuple(self.beta.shape)} for T = {T}: give ({T},)")
        outside = ~((self.beta > 0) & (self.beta < 1))
        if outside.any():
            k = int(outside.nonzero()[0]) + 1
            raise ValueError(
                f"beta_{k} = {self.beta[k - 1].item():g} must lie strictly between 0 and 1 "
                "(0 adds no noise, 1 leaves no signal)"
            )
        self._log_alpha_bar = torch.cat([self.beta.new_zeros(1), torch.log1p(-self.beta).cumsum(0)])
        self.alpha_bar = self._log_alpha_bar.exp()

    def __call__(self, u: Tensor) -> NoiseLevel:
        """The level at u in [0, 1], any shape; u = k / T is table entry k.

        Raises ValueError for u outside [0, 1], as all schedules do.
        """
        k = _times(u).cpu().double() * self.T
        below = k.detach().floor().long().clamp(0, self.T - 1)
        low, high = self._log_alpha_bar[below], self._log_alpha_bar[below + 1]
        return _level(low + (k - below) * (high - low))

    def at(self, k) -> NoiseLevel:
        """Table entry k in 0..T, an integer or a tensor of integers: (sqrt ab, sqrt(1 - ab)).

        Raises ValueError for k outside 0..T: index -1 would wrap to the *last* entry; and for k
        that is no integer.
        """
        k = torch.as_tensor(k, device="cpu")
        if k.is_floating_point() or k.dtype == torch.bool:
            raise ValueError(
                f"step {k.tolist()}: steps are integers; between them, schedule(k / T)"
            )
        k = k.long()  # small integers would be taken for masks
        if k.min() < 0 or k.max() > self.T:
            raise ValueError(f"step {k.min()}..{k.max()} is outside the table 0..{self.T}")
        return _level(self._log_alpha_bar[k])


def _level(log_alpha_bar: Tensor) -> NoiseLevel:
    # 1 - exp(x) would lose digits where alpha_bar is close to 1
    return NoiseLevel((log_alpha_bar / 2).exp(), torch.expm1(log_alpha_bar).abs().sqrt())


# --- schedules in continuous time ----------------------------------------------------------------


def trigonometric(u: Tensor) -> NoiseLevel:
    """signal = cos(pi u / 2), noise = sin(pi u / 2): unit variance, constant angular speed.

    Source: Salimans & Ho 2022, sec. 4; the cosine schedule with s = 0 and no cut.
    """
    u = _times(u)
    return NoiseLevel(torch.sin(torch.pi / 2 * (1 - u)), torch.sin(torch.pi / 2 * u))  # exact ends


def straight(u: Tensor) -> NoiseLevel:
    """signal = 1 - u, noise = u: the straight line of flow matching. Source: Liu et al. 2023."""
    u = _times(u)
    return NoiseLevel(1 - u, u)


def exploding(sigma_max: float = 80.0) -> Schedule:
    """signal = 1, noise = sigma_max * u: noise is added, the signal left alone (VE).

    Raises ValueError unless sigma_max is a positive number. Source: Karras et al. 2022, sec. 3.
    """
    if not 0 < sigma_max < float("inf"):
        raise ValueError(f"sigma_max = {sigma_max} must be a positive number")

    def variance_exploding(u: Tensor) -> NoiseLevel:
        u = _times(u)
        return NoiseLevel(torch.ones_like(u), sigma_max * u)

    return variance_exploding


def _times(u) -> Tensor:
    """u as floating-point numbers in [0, 1]; what lies outside by rounding alone is put on the end.

    Raises ValueError for u further outside, such as the number of a step.
    """
    u = floats(u)
    outside = ~((u >= -_ROUNDING) & (u <= 1 + _ROUNDING))
    if outside.any():
        raise ValueError(
            f"u = {u[outside].flatten()[0].item():g}: a schedule is called with u from 0 (data) to "
            "1 (noise); step k of a DDPM table is at(k)"
        )
    return u.clamp(0, 1)


_ROUNDING = 1e-6  # a few units of the last place in float32


# --- grids: where a sampler stops ----------------------------------------------------------------


def grid(schedule: Schedule, steps: int, start: float = 1.0, end: float = 0.0) -> list[NoiseLevel]:
    """steps + 1 levels at equal distances in u, from `start` down to `end`; float64 scalars.

    Raises ValueError for steps < 1, for more steps than a DDPM table has, and if the schedule
    does not grow noisier with u. Source: L22-34. Lesson: 07_samplers.
    """
    _check_steps(schedule, steps)
    return check_monotone([schedule(u) for u in _line(start, end, steps)])


def log_snr_grid(
    schedule: Schedule, steps: int, start: float = 1.0, end: float = 1e-3
) -> list[NoiseLevel]:
    """steps levels at equal distances in log-SNR from u = `start` to `end` > 0, and then the data.

    The grid that DPM-Solver prefers. Inverts the schedule by bisection, so any schedule will do.
    Raises ValueError as `grid` does, and if an end has no finite log-SNR (u = 0, or signal = 0).
    Source: Lu et al. 2022b, sec. 4; L22-46. Lesson: 07_samplers.
    """
    _check_steps(schedule, steps)
    first, last = (_log_snr(schedule, u) for u in (start, end))
    if not (first.isfinite() and last.isfinite()):
        raise ValueError(
            f"log-SNR runs from {first:g} to {last:g} between u = {start} and {end}: "
            "move the infinite end inwards (e.g. start=0.99, end=0.001)"
        )
    wanted = first + (last - first) * torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = torch.full_like(wanted, end), torch.full_like(wanted, start)
    for _ in range(60):  # halves the interval down to float64 resolution
        middle = (low + high) / 2
        noisier = _log_snr(schedule, middle) < wanted
        low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
    clean = torch.zeros((), dtype=torch.float64)
    return check_monotone([schedule(u) for u in [*high, clean]])


def karras_levels(
    steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> list[NoiseLevel]:
    """steps levels (1, sigma_i), dense near the data, and then (1, 0).

    Raises ValueError for steps < 1 or unless 0 < sigma_min < sigma_max.
    Source: Karras et al. 2022, eq. 5. Lesson: 07_samplers.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: a grid needs at least one step")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + _line(0.0, 1.0, max(steps - 1, 1))[:steps] * (low - high)) ** rho
    one = torch.ones((), dtype=torch.float64)
    return [NoiseLevel(one, sigma) for sigma in [*sigmas, torch.zeros_like(one)]]


def check_monotone(levels: list[NoiseLevel]) -> list[NoiseLevel]:
    """The same levels, if each is cleaner than the one before, or each noisier (to walk upwards).

    Raises ValueError that names the first step which is not. Source: T-21.
    """
    if len(levels) < 2:
        raise ValueError(f"{len(levels)} noise levels: a walk needs at least two")
    clocks = torch.stack([wide(level.clock) for level in levels])
    forwards = torch.sign(clocks[-1] - clocks[0]) or 1.0
    wrong = ~(torch.diff(clocks) * forwards > 0)
    if wrong.any():
        k = int(wrong.nonzero()[0])
        raise ValueError(
            f"noise levels must rise or fall all the way, but level {k + 1} (clock "
            f"{clocks[k + 1].item():.6g}) follows level {k} (clock {clocks[k].item():.6g}): "
            "sort them, drop repeats, or mend the schedule"
        )
    return levels


def _check_steps(schedule: Schedule, steps: int) -> None:
    T = getattr(schedule, "T", None)
    if steps < 1 or (T is not None and steps > T):
        limit = f"1 to {T} for this schedule of T = {T}" if T else "at least 1"
        raise ValueError(f"steps = {steps}: choose {limit}")


def _line(start: float, end: float, steps: int) -> Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def _log_snr(schedule: Schedule, u) -> Tensor:
    signal, noise = schedule(torch.as_tensor(u, dtype=torch.float64))
    return 2 * (signal.log() - noise.log())
