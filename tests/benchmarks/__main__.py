"""python -m tests.benchmarks [name ...]: prints the table of what was measured."""

import sys

from tests.benchmarks import measure

COLUMNS = "{:44} {:>12} {:8} {:>12}  {}"
VERDICT = {True: "ok", False: "MISSED", None: ""}

print(COLUMNS.format("name", "value", "unit", "goal", ""))
for row in measure(sys.argv[1:]):
    print(
        COLUMNS.format(row.name, f"{row.value:.4g}", row.unit, row.goal or "", VERDICT[row.ok]),
        flush=True,
    )
