"""How long one waits for the lessons and for the fast tests."""

import subprocess
import time
from collections.abc import Iterator

from lessons import build
from tests.benchmarks import ROOT, Row, at_most, benchmark


@benchmark
def lessons_time() -> Iterator[Row]:
    """All lessons, one after another, each in a fresh kernel."""
    total = 0.0
    for source in build.sources():
        notebook = build.build(source)
        start = time.perf_counter()
        build.run(notebook)
        seconds = time.perf_counter() - start
        total += seconds
        yield Row(f"lessons_time.{source.stem}", seconds, "s")
    yield at_most("lessons_time", total, 120, "s")


@benchmark
def fast_tests_time() -> Iterator[Row]:
    """`make fast`, the start of Python included."""
    start = time.perf_counter()
    done = subprocess.run(["make", "fast"], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"the fast tests fail, so their time says nothing:\n{done.stdout}")
    yield at_most("fast_tests_time", seconds, 60, "s")
