"""How long one waits for the lessons and for the fast tests."""

import subprocess
import time
from collections.abc import Iterator

from lessons import build
from tests.benchmarks import ROOT, Row, at_most, benchmark

PROMISED = {  # lessons, and the seconds they may take together
    "spine": (("03", "06", "07", "11"), 120),
    "part_one": (("01", "02", "03", "04", "05", "06", "07"), 150),
    "parts_one_and_two": (tuple(f"{k:02}" for k in range(1, 12)), 300),
}


@benchmark
def lessons_time() -> Iterator[Row]:
    """All lessons, one after another, each in a fresh kernel."""
    seconds = {}
    for source in build.sources():
        notebook = build.build(source)
        start = time.perf_counter()
        build.run(notebook)
        seconds[source.stem[:2]] = time.perf_counter() - start
        yield Row(f"lessons_time.{source.stem}", seconds[source.stem[:2]], "s")
    for part, (numbers, goal) in PROMISED.items():
        total = sum(seconds.get(number, 0) for number in numbers)
        yield at_most(f"lessons_time.{part}", total, goal, "s")


@benchmark
def fast_tests_time() -> Iterator[Row]:
    """`make fast`, the start of Python included."""
    start = time.perf_counter()
    done = subprocess.run(["make", "fast"], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"the fast tests fail, so their time says nothing:\n{done.stdout}")
    yield at_most("fast_tests_time", seconds, 60, "s")
