"""How long one waits for the lessons and for the tests."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Iterator

from lessons.source import build
from tests.benchmarks import ROOT, Row, at_most, benchmark

TOGETHER = tuple(f"{k:02}" for k in range(1, 12))
PROMISED = {  # lessons, and the seconds they may take in sum
    "spine": (("03", "06", "07", "11"), 120),
    "part_one": (("01", "02", "03", "04", "05", "06", "07"), 150),
    "one_after_another": (TOGETHER, 300),
}


@benchmark
def lessons_time() -> Iterator[Row]:
    """Each lesson by itself, as a student runs it; then all at once, as `make lessons` does."""
    seconds = {}
    for source in build.sources():
        name = build.name(source)
        ((_, seconds[name]),) = build.run_all([build.build(source)])
        yield Row(f"lessons_time.{name}", seconds[name], "s")
    for part, (numbers, goal) in PROMISED.items():
        summed = sum(each for name, each in seconds.items() if name[:2] in numbers)
        yield at_most(f"lessons_time.{part}", summed, goal, "s")
    start = time.perf_counter()
    deque(build.run_all([build.build(source) for source in build.sources(*TOGETHER)]), maxlen=0)
    yield at_most("lessons_time.together", time.perf_counter() - start, 300, "s")


@benchmark
def fast_tests_time() -> Iterator[Row]:
    """`make fast`, the start of Python included."""
    yield at_most("fast_tests_time", made("fast"), 60, "s")


@benchmark
def tests_time() -> Iterator[Row]:
    """`make test` as it runs on a processor without bfloat16."""
    yield at_most("tests_time", made("test"), 600, "s")


def made(what: str) -> float:
    """The seconds that `make what` takes. Raises RuntimeError if it fails."""
    start = time.perf_counter()
    environment = os.environ | {"DIDIFF_QUICK": "0"}
    done = subprocess.run(["make", what], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"make {what} fails:\n{done.stdout[-5000:]}")
    return time.perf_counter() - start
