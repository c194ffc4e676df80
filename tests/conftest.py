"""What holds for every test: the same random numbers in any order and any selection."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
