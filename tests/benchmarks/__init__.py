"""What the project promises in numbers. `make bench` measures all, `make bench ONLY=name` one.

A benchmark is a function that yields rows; put it into any module of this folder:

    @benchmark
    def lessons_time():
        yield at_most("lessons_time", seconds, 120, "s")

Every row goes into one table and into build/bench.jsonl. Measuring is not testing: a missed goal is
a row that says so, not a failure.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "build" / "bench.jsonl"


class Row(NamedTuple):
    """One measured number. `goal` and `ok` are None where nothing is promised."""

    name: str
    value: float
    unit: str
    goal: str | None = None
    ok: bool | None = None


Benchmark = Callable[[], Iterable[Row]]
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(function: Benchmark) -> Benchmark:
    """Adds a function that yields rows to what `make bench` measures."""
    BENCHMARKS[function.__name__] = function
    return function


def at_most(name: str, value: float, goal: float, unit: str) -> Row:
    """A row whose value is to be `goal` or less."""
    return Row(name, value, unit, f"<= {goal:g}", value <= goal)


def at_least(name: str, value: float, goal: float, unit: str) -> Row:
    """A row whose value is to be `goal` or more."""
    return Row(name, value, unit, f">= {goal:g}", value >= goal)


def chosen(only: list[str]) -> list[Benchmark]:
    """The benchmarks with these names, or all. Raises ValueError for a name there is not."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            importlib.import_module(f"{__name__}.{module.name}")
    for name in only:
        if name not in BENCHMARKS:
            raise ValueError(f"no benchmark {name!r}: there are {', '.join(sorted(BENCHMARKS))}")
    return [BENCHMARKS[name] for name in only or sorted(BENCHMARKS)]


def measure(only: list[str]) -> Iterator[Row]:
    """Rows one after another, each written to build/bench.jsonl as soon as it is known."""
    functions = chosen(only)
    REPORT.parent.mkdir(exist_ok=True)
    with REPORT.open("w") as report:
        for function in functions:
            for row in function():
                print(json.dumps(row._asdict()), file=report, flush=True)
                yield row
