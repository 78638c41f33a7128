"""Do stored speedups hold in another process?

    python benchmarks/claims.py KERNEL STORE... [--json FILE]

Times every stored winner that is not the baseline against its baseline once more, a fresh process per store, and counts
how many stored intervals contain the new speedup.
"""

import argparse
import json
from pathlib import Path

from pairs import Pair, measured_winners, ratios

from tuner.catalog import load_kernel
from tuner.records import L2State

SEED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kernel = load_kernel(options.kernel)
    rows = []
    for number, store in enumerate(options.stores):
        winners = [each for each in measured_winners(store, kernel).values() if each.variant != each.baseline]
        pairs = [Pair(each.baseline, each.variant, each.shape, L2State(each.environment.l2)) for each in winners]
        for winner, again in zip(winners, ratios(kernel, pairs, SEED + 1000 * number), strict=True):
            claim, label = winner.speedup, kernel.spec.short_label(winner.shape)
            holds = claim.low <= again <= claim.high
            stored = [claim.low, claim.median, claim.high]
            rows.append({"store": Path(store).name, "shape": label, "stored": stored, "again": again, "holds": holds})
            print(f"{label}: {claim.median:.3f} [{claim.low:.3f}, {claim.high:.3f}], again {again:.3f}", flush=True)
    held = sum(row["holds"] for row in rows)
    print(f"{held} of {len(rows)} stored intervals contain the new speedup")
    if options.json:
        options.json.write_text(json.dumps({"held": held, "claims": len(rows), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
