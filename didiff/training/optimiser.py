"""How long the steps of a run are, and an optimiser for long ones."""

from typing import NamedTuple

import torch


class Rates(NamedTuple):
    """The learning rate of each step 1..steps: it climbs to lr in the first `warmup` steps, and
    falls towards zero in the last `cooldown`."""

    lr: float
    steps: int
    warmup: int = 0
    cooldown: int = 0

    def at(self, step: int) -> float:
        up, down = step / max(self.warmup, 1), (self.steps - step + 1) / max(self.cooldown, 1)
        return self.lr * min(1, up, down)


class Muon:
    """For long runs: torch's Muon moves every weight with at least two axes, Adam the others.

    Muon takes the gradient of a matrix, averages it, and makes all its singular values nearly one:
    directions that rarely get a gradient move as far as the others. A convolution counts as a
    matrix (out, rest).

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; its step as long as
    Adam's: Liu et al. 2025, eq. 4, https://arxiv.org/abs/2502.16982.
    """

    def __init__(self, parameters):
        every = list(parameters)
        self.weights = [p for p in every if p.ndim > 1]
        # copies, as the numbers of a convolution may lie in memory in an order that is no matrix
        self.matrices = [w.detach().flatten(1).clone() for w in self.weights]
        vectors = [p for p in every if p.ndim <= 1]
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if self.matrices:  # torch's optimisers refuse to have nothing to move
            self.parts["muon"] = torch.optim.Muon(
                self.matrices, weight_decay=0, adjust_lr_fn="match_rms_adamw"
            )
        if vectors or not self.matrices:  # a network without weights is Adam's to refuse
            self.parts["adam"] = torch.optim.Adam(vectors)

    @property
    def param_groups(self) -> list[dict]:
        return [group for part in self.parts.values() for group in part.param_groups]

    @torch.no_grad()
    def step(self) -> None:
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.copy_(weight.flatten(1))
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for part in self.parts.values():
            part.step()
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            weight.copy_(matrix.view_as(weight))

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None
        for part in self.parts.values():
            part.zero_grad()

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
