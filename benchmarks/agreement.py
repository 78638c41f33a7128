"""Do two runs agree?

    python benchmarks/agreement.py KERNEL STORE_A STORE_B [--json FILE]

Times the winners of two stores alternately, in three fresh processes per shape, and prints how far apart they are: the
median of the processes, for below 3 us they disagree by percents.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from pairs import Pair, measured_winners, ratios

from tuner.catalog import load_kernel
from tuner.records import L2State

SEED = 2000
PROCESSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kernel = load_kernel(options.kernel)
    first, second = (measured_winners(store, kernel) for store in (options.first, options.second))
    shapes = [shape for shape in first if shape in second]
    if not shapes:
        parser.error("the stores share no shape")
    pairs = [
        Pair(first[each].variant, second[each].variant, each, L2State(first[each].environment.l2)) for each in shapes
    ]
    rows = []
    rounds = zip(*(ratios(kernel, pairs, SEED + number) for number in range(PROCESSES)), strict=True)
    for pair, found in zip(pairs, rounds, strict=True):
        ratio = median(found)
        label, slower, same = kernel.spec.short_label(pair.shape), 1 / ratio - 1, pair.first == pair.second
        rows.append({"shape": label, "second_slower_by": slower, "same_variant": same, "processes": found})
        print(f"{label}: second slower by {slower:+.2%}{' (same variant)' if same else ''}", flush=True)
    worst = max(abs(row["second_slower_by"]) for row in rows)
    print(f"the winners are at most {worst:.2%} apart, over {len(rows)} shapes")
    if options.json:
        options.json.write_text(json.dumps({"worst": worst, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
