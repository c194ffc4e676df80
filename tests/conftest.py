"""What holds for every test: one thread, and the same random numbers in any order and selection."""

import pytest
import torch

torch.set_num_threads(1)  # the tests' tensors are small: more threads only wait for one another


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
