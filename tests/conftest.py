"""What holds for every test: one thread, and the same random numbers in any order and selection."""

import pytest
import torch

torch.set_num_threads(1)  # the tests' tensors are small: more threads only wait for one another


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """With --dist=loadgroup: what belongs to no smaller group stays with its file."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
