"""Distillation is a loss: what a teacher sees in a noisy point stands in the place of the truth."""

from functools import partial

import torch
from torch import Tensor

from .. import guidance
from ..denoiser import Denoiser, loss
from ..process import add_noise
from ..schedules import DDPMSchedule
from .loop import random_steps


def distilling(teacher: Denoiser, schedule: DDPMSchedule, largest: float = 10.0):
    """The loss of a student that is to say in one call what `classifier_free` says in two.

    (student, x0 (B, *d), y (B,)) -> (B,). The student is told `random_scales`. Errors grow with
    omega, and are divided by 1 + omega.
    Source: Meng et al. 2023, eq. 4. Lesson: 11_classifier_free_guidance.
    """

    def losses(student: Denoiser, x0: Tensor, y: Tensor) -> Tensor:
        t, omega = random_steps(schedule, len(x0)), random_scales(len(x0), largest)
        xt = add_noise(x0, torch.randn_like(x0), t)
        with torch.no_grad():
            wanted = guidance.classifier_free(teacher, y, omega)(xt, t)
        told = partial(student, omega=omega)
        return loss(told, wanted.x0, t, y, wanted.eps, student.target) / (1 + omega)

    return losses


def random_scales(n: int, largest: float) -> Tensor:
    """Guidance scales to learn from, (n,), in 0..largest, small ones more often, a quarter just 1.

    Between 0 and 1 the answer turns from one that ignores the label to one that obeys it. At 1 a
    student that starts as its teacher is right from the start, and the other scales pull it away.
    """
    scales = largest * torch.rand(n) ** 2
    return torch.where(torch.rand(n) < 0.25, 1.0, scales)
