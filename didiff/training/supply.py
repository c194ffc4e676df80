"""Batches in turn, epoch after epoch, and the way back to a batch in the middle of one."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from .checkpoints import get_rng, set_rng


class Supply:
    """Batches without end. What can be gone through again is: a list, or a DataLoader, which
    shuffles anew each time. A batch is a tuple, or else the only part of one.

    given: how many there were. Raises ValueError when an epoch brings none.
    """

    def __init__(self, batches: Iterable):
        self.given = self.begun = self.epoch = 0
        self.rng: list[Tensor] = []
        self._walk = self._epochs(batches)

    def __next__(self) -> tuple:
        return next(self._walk)

    def _epochs(self, batches: Iterable) -> Iterator[tuple]:
        while True:
            self.begun, self.epoch, self.rng = self.given, self.epoch + 1, get_rng()
            for batch in batches:
                self.given += 1
                yield tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
            if self.given == self.begun:
                raise ValueError(
                    f"the batches ended after {self.given}, and step {self.given + 1} needs one: "
                    "give a list or a DataLoader, which is gone through again and again, or an "
                    "iterator that does not end, such as data.batches"
                )

    @property
    def where(self) -> str:
        """The step that uses the last batch, and the place of that batch."""
        return f"step {self.given}, batch {self.given - self.begun} of epoch {self.epoch}"

    def state_dict(self) -> dict:
        return {"given": self.given, "begun": self.begun, "rng": self.rng}

    def load_state_dict(self, state: dict) -> None:
        """Take again all that was given, with the random numbers the last epoch was shuffled by."""
        self._take(state["begun"])
        set_rng(state["rng"])
        self._take(state["given"] - state["begun"])

    def _take(self, count: int) -> None:
        for _ in range(count):
            next(self)
