"""How much slower than the per-shape winners is the portfolio?

    python benchmarks/portfolio.py KERNEL STORE [--device NAME] [--bound 0.01] [--workload NAME] [--processes 5]
        [--json FILE]

Chooses the portfolio from the store as `tuner export-config` does. At each tuned shape where it has another variant
than the shape's winner, times both alternately in fresh processes; prints the median ratio and its range over these.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from pairs import Pair, ratios

from tuner.catalog import Kernel, load_kernel
from tuner.consolidation import Consolidation, consolidate
from tuner.export.selection import evaluations_behind, export_table
from tuner.records import L2State
from tuner.records.portfolio import REGRET_BOUND
from tuner.runtime import WinnerTable
from tuner.store import Store
from tuner.workload import load_workload

SEED = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("store")
    parser.add_argument("--device")
    parser.add_argument("--bound", type=float, default=REGRET_BOUND)
    parser.add_argument("--workload")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kernel = load_kernel(options.kernel)
    with Store.open(options.store, read_only=True) as store:
        table = export_table(kernel, store.winners(kernel.name), options.device)
        evaluations = evaluations_behind(table, store)
    workload = load_workload(options.workload) if options.workload else None
    found = consolidate(kernel, table, evaluations, options.bound, workload)
    rows = regrets(kernel, table, found, options.processes)
    largest = max(row["regret"] for row in rows)
    portfolio = found.portfolio
    print(f"{len(portfolio.variants)} variants, {portfolio.compiles} compiles; largest regret {largest:.2%}")
    if options.json:
        counts = {"variants": len(portfolio.variants), "compiles": portfolio.compiles, "bound": options.bound}
        options.json.write_text(json.dumps({**counts, "largest_regret": largest, "rows": rows}, indent=2) + "\n")


def regrets(kernel: Kernel, table: WinnerTable, found: Consolidation, processes: int) -> list[dict[str, Any]]:
    """For each tuned shape the regret that the store says and the one measured now; 0 where the winner itself runs."""
    cells = [pair for each in found.assignments for pair in zip(each.cells, each.variants, strict=True)]
    l2 = L2State(table.environment.l2)
    pairs = {
        cell.shape: Pair(variant, cell.winner, cell.shape, l2) for cell, variant in cells if variant != cell.winner
    }
    again = [list(ratios(kernel, pairs.values(), SEED + 1000 * number)) for number in range(processes)]
    measured = dict(zip(pairs, zip(*again, strict=True), strict=True)) if pairs else {}
    rows = []
    for cell, variant in cells:
        taken = measured.get(cell.shape, (1.0,))
        row = {
            "shape": kernel.spec.short_label(cell.shape),
            "stored_regret": cell.regret(variant),
            "regret": median(taken) - 1,
            "low": min(taken) - 1,
            "high": max(taken) - 1,
            "winner_itself": variant == cell.winner,
        }
        rows.append(row)
        print(f"{row['shape']}: stored {row['stored_regret']:.2%}, measured {regret_text(row)}", flush=True)
    return rows


def regret_text(row: dict[str, Any]) -> str:
    if row["winner_itself"]:
        return "0, as the winner itself runs"
    return f"{row['regret']:.2%} [{row['low']:.2%}, {row['high']:.2%}]"


if __name__ == "__main__":
    main()
