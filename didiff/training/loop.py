"""The training loop of the lessons, plus what a long run needs: an average, checkpoints, resume.

    for progress in fit(denoiser, losses, batches, steps):
        ...

With its defaults this is the lessons' eight-line loop, bit for bit.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..mixtures import NO_LABEL, as_labels
from ..process import NoiseLevel
from ..schedules import DDPMSchedule
from .checkpoints import restore, save, set_rng, settings
from .optimiser import Rates
from .supply import Supply

# --- what is drawn for each sample of a batch ----------------------------------------------------


def random_steps(schedule: DDPMSchedule, n: int, generator=None) -> NoiseLevel:
    """n levels of the table, schedule.at(k) with k uniform in 1..T, the lectures' draw. (n,).

    Source: Ho et al. 2020, alg. 1; L6-29. Lesson: 05_training_objective.
    """
    return schedule.at(torch.randint(1, schedule.T + 1, (n,), generator=generator))


def drop_labels(y: Tensor, p: float, generator=None) -> Tensor:
    """Labels y (B,), each replaced by "no label", -1, with probability p: one coin per sample.

    So a single network learns the conditional and the unconditional model. One coin per batch
    would have the two take turns, and the loss tremble (T-17).

    y: whole numbers of any type; what comes back is int64, which holds -1. Of samples
    of several parts, y (B, P), each part has a coin of its own.
    Raises ValueError for p outside [0, 1], or labels that are no whole numbers.
    Source: Ho & Salimans 2022, alg. 1; L6-63. Lesson: 11_classifier_free_guidance.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p = {p}: the probability of dropping a label lies in [0, 1]")
    y = as_labels(y)
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
    denoiser: Model, losses: Callable[..., Tensor], batches: Iterable, steps: int,
    lr: float = 1e-3, ema: float = 0.0, clip: float = math.inf, warmup: int = 0, cooldown: int = 0,
    checkpoint: str | Path | None = None, every: int = 1000, optimiser: Callable = torch.optim.Adam,
) -> Iterator[Progress[Model]]:  # fmt: skip
    """Minimise the mean of losses(denoiser, *batch) -> (B,), usually with Adam; yield every step.

    batches: a DataLoader or a list, gone through again and again, or an iterator of `steps`
    batches. ema: decay in [0, 1) of the averaged model, a denoiser like the other; with 0 it is a
    copy. clip: longest gradient allowed. warmup: steps in which the learning rate climbs to lr.
    cooldown: steps at the end in which it falls again, to zero; they cannot be added to later.
    checkpoint: a file, written every `every` steps and at the end. If it exists already, the run
    first yields the state it holds, and goes on as if it had never stopped; `batches` must then be
    the same as before, from the start. optimiser: parameters -> what makes the steps, such as Muon.

    Raises ValueError for a number out of range, or a checkpoint that is damaged, of another run or
    past `steps`: at once, before any work. Also at a step that has no batch, or whose loss or
    gradient is not finite: model, average and checkpoint are then as they were before that step.
    Source: Ho et al. 2020, alg. 1; T-27.
    Lesson: 05_training_objective, 11_classifier_free_guidance.
    """
    _check_counts(steps, every, warmup, cooldown)
    _check_numbers(lr, ema, clip)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    supply, stepper = Supply(batches), optimiser(denoiser.parameters())
    parts = {"supply": supply, "optimiser": stepper, "model": denoiser, "ema": average}
    told = settings(denoiser, stepper, ema=ema, clip=clip)
    rates = Rates(lr, steps, warmup, cooldown)
    path = Path(checkpoint) if checkpoint else None
    held = restore(path, parts, told, rates) if path and path.exists() else None

    def step_by_step() -> Iterator[Progress[Model]]:
        start = time.perf_counter() - (held["seconds"] if held else 0)
        if held:
            set_rng(held["rng"])
            yield Progress(held["step"], held["loss"], denoiser, average, held["seconds"])
        for step in range(supply.given + 1, steps + 1):
            loss = _update(denoiser.train(), stepper, losses, supply, rates.at(step), clip)
            _follow(average, denoiser, min(ema, (1 + step) / (10 + step)))
            seconds = time.perf_counter() - start
            if path and (step % every == 0 or step == steps):
                save(path, parts, told, rates, step=step, loss=loss, seconds=seconds)
            yield Progress(step, loss, denoiser, average, seconds)

    return step_by_step()


def _update(denoiser, optimiser, losses, supply: Supply, lr: float, clip: float) -> Tensor:
    for group in optimiser.param_groups:
        group["lr"] = lr
    batch = next(supply)
    loss = losses(denoiser, *batch).mean()
    optimiser.zero_grad()
    loss.backward()
    weights = list(denoiser.parameters())
    length = nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
    if not (loss.detach() + length).isfinite():  # a GPU is waited for here, once a step
        raise ValueError(f"{supply.where}: {_not_finite(loss, length, batch)}")
    if clip < math.inf:
        nn.utils.clip_grads_with_norm_(weights, clip, length)
    optimiser.step()
    return loss.detach()


def _not_finite(loss: Tensor, length: Tensor, batch: tuple) -> str:
    tensors = [part for part in batch if isinstance(part, Tensor)]
    clean = all(part.isfinite().all() for part in tensors)
    remedy = "a smaller lr or clip may help" if clean else "mend the data, this batch is not finite"
    return (
        f"the loss is {loss:g} and its gradient {length:g} long: {remedy}. The model and its "
        "checkpoint are as they were before this step"
    )


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
