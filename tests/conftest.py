"""What holds for every test: one thread, and the same random numbers in any order and selection."""

import pytest
import torch

torch.set_num_threads(1)  # the tests' tensors are small: more threads only wait for one another


@pytest.fixture(autouse=True)
def seed():
    # the CPU's alone: torch.manual_seed writes a stack trace for each kind of device as well
    torch.default_generator.manual_seed(0)


FAST = 120  # seconds: a fast test takes milliseconds, one that hangs must not hold up the others


def pytest_collection_modifyitems(items):
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("slow", "browser", "timeout")):
            item.add_marker(pytest.mark.timeout(FAST))
