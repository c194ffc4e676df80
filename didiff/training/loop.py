"""The training loop of the lessons, plus what a long run needs: an average, checkpoints, resume.

    for progress in fit(denoiser, losses, batches, steps):
        ...

With its defaults this is the lessons' eight-line loop, bit for bit.
"""

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..mixtures import NO_LABEL
from ..process import NoiseLevel
from ..schedules import DDPMSchedule, Schedule
from .checkpoints import get_rng, restore, save, set_rng

# --- what is drawn for each sample of a batch ----------------------------------------------------


def random_steps(schedule: DDPMSchedule, n: int, generator=None) -> NoiseLevel:
    """n levels of the table, schedule.at(k) with k uniform in 1..T, the lectures' draw. (n,).

    Source: Ho et al. 2020, alg. 1; L6-29. Lesson: 05_training_objective.
    """
    return schedule.at(torch.randint(1, schedule.T + 1, (n,), generator=generator))


def random_levels(schedule: Schedule, n: int, generator=None) -> NoiseLevel:
    """n levels of any schedule, schedule(u) with u uniform in the open interval (0, 1). (n,).

    The ends are left out because there an x0- or an eps-network has nothing to say (0 / 0).
    Source: Song et al. 2021b, eq. 7.
    """
    cells = 2**24
    middles = torch.randint(cells, (n,), generator=generator).double() + 0.5
    return schedule(middles / cells)


def drop_labels(y: Tensor, p: float, generator=None) -> Tensor:
    """Labels y (B,), each replaced by "no label", -1, with probability p: one coin per sample.

    So a single network learns the conditional and the unconditional model. One coin per batch
    would have the two take turns, and the loss tremble (T-17).

    Raises ValueError for p outside [0, 1].
    Source: Ho & Salimans 2022, alg. 1; L6-63. Lesson: 11_classifier_free_guidance.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p = {p}: the probability of dropping a label lies in [0, 1]")
    drawn = torch.rand(y.shape, generator=generator).to(y.device)
    return y.masked_fill(drawn < p, NO_LABEL)


# --- the loop ------------------------------------------------------------------------------------


Model = TypeVar("Model", bound=nn.Module)


class Progress(NamedTuple, Generic[Model]):
    """After optimiser step `step`: the loss () of its batch, the model, and the averaged model.

    seconds: of work up to here, that of a run which was cut off and went on included.
    """

    step: int
    loss: Tensor
    model: Model
    ema: Model
    seconds: float = 0.0


def fit(
    denoiser: Model, losses: Callable[..., Tensor], batches: Iterator[tuple], steps: int,
    lr: float = 1e-3, ema: float = 0.0, clip: float = math.inf, warmup: int = 0, cooldown: int = 0,
    checkpoint: str | Path | None = None, every: int = 1000, optimiser: Callable = torch.optim.Adam,
) -> Iterator[Progress[Model]]:  # fmt: skip
    """Minimise the mean of losses(denoiser, *batch) -> (B,), usually with Adam; yield every step.

    ema: decay in [0, 1) of the averaged model, a denoiser like the other; with 0 it is a copy.
    clip: longest gradient allowed. warmup: steps in which the learning rate climbs to lr.
    cooldown: steps at the end in which it falls again, to zero; they cannot be added to later.
    checkpoint: a file, written every `every` steps and at the end. If it exists already, the run
    first yields the state it holds, and goes on as if it had never stopped; `batches` must then be
    the same as before, from the start. optimiser: parameters -> what makes the steps, such as Muon.

    Raises ValueError for a number out of range, or a checkpoint that is damaged, of another model
    or past `steps`: at once, before any work.
    Source: Ho et al. 2020, alg. 1; T-27.
    Lesson: 05_training_objective, 11_classifier_free_guidance.
    """
    _check_counts(steps, every, warmup, cooldown)
    _check_numbers(lr, ema, clip)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    stepper = optimiser(denoiser.parameters())
    parts = {"model": denoiser, "ema": average, "optimiser": stepper}
    path = Path(checkpoint) if checkpoint else None
    held = restore(path, parts, steps) if path and path.exists() else None
    done = held["step"] if held else 0

    def step_by_step() -> Iterator[Progress[Model]]:
        start = time.perf_counter() - (held["seconds"] if held else 0)
        if held:
            deque(islice(batches, done), maxlen=0)  # what the first run has used up
            set_rng(held["rng"])
            yield Progress(done, held["loss"], denoiser, average, held["seconds"])
        for step in range(done + 1, steps + 1):
            rate = lr * min(1, step / max(warmup, 1), (steps - step + 1) / max(cooldown, 1))
            loss = _update(denoiser.train(), stepper, losses, next(batches), rate, clip)
            _follow(average, denoiser, min(ema, (1 + step) / (10 + step)))
            seconds = time.perf_counter() - start
            if path and (step % every == 0 or step == steps):
                save(path, parts, step=step, loss=loss, rng=get_rng(), seconds=seconds)
            yield Progress(step, loss, denoiser, average, seconds)

    return step_by_step()


def _update(denoiser, optimiser, losses, batch, lr: float, clip: float) -> Tensor:
    for group in optimiser.param_groups:
        group["lr"] = lr
    loss = losses(denoiser, *batch).mean()
    optimiser.zero_grad()
    loss.backward()
    if clip < math.inf:
        nn.utils.clip_grad_norm_(denoiser.parameters(), clip)
    optimiser.step()
    return loss.detach()


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, and buffers along with the weights.

    The caller warms the decay up: from the start at its full value, an average over 10,000 steps
    would mostly remember the random initial weights (T-27).
    """
    for slow, fast in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _check_counts(steps: int, every: int, warmup: int, cooldown: int) -> None:
    if steps < 1 or every < 1 or warmup < 0 or cooldown < 0:
        raise ValueError(
            f"steps = {steps}, every = {every}, warmup = {warmup}, cooldown = {cooldown}: "
            "they are at least 1, 1, 0 and 0"
        )


def _check_numbers(lr: float, ema: float, clip: float) -> None:
    if not 0 < lr < math.inf:
        raise ValueError(f"lr = {lr}: a learning rate is positive, 0.001 is usual")
    if not 0 <= ema < 1:
        raise ValueError(f"ema = {ema}: a decay lies in [0, 1); 0 is off, 0.999 is usual")
    if not clip > 0:
        raise ValueError(f"clip = {clip}: the longest gradient allowed is positive")
