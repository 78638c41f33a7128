"""How often a program runs its code: read from Triton's IR, where loops still stand as they were written."""

import math
import re
from collections.abc import Iterator

from tuner.records import Binary

_CONSTANT = re.compile(r"(%[\w#]+) = arith\.constant (-?\d+) : (?:i\d+|index)")
_FOR = re.compile(r"scf\.for %\w+ = (%[\w#]+) to (%[\w#]+) step (%[\w#]+)")
_STORE = re.compile(r"tt\.store .*: (?:tensor<(?P<sizes>(?:\d+x)+))?!tt\.ptr<[a-z]+(?P<bits>\d+)")


def code_repeats(ttir: str, binary: Binary, threads: int) -> float | None:
    """How often a program of `threads` runs the code of `binary`; None where a loop's bounds are not constants.

    That is the trips of its deepest loop, or fewer where the compiler has unrolled it: the IR says how many bytes a
    program stores, the machine code how many it stores when run once.
    """
    trips, stored = 1, 0
    try:
        for line, repeats in _lines(ttir):
            trips = max(trips, repeats)
            if store := _STORE.search(line):
                sizes = [int(size) for size in (store["sizes"] or "").split("x") if size]
                stored += repeats * math.prod(sizes) * max(1, int(store["bits"]) // 8)
    except _UnknownBoundsError:
        return None
    once = threads * sum(int(width) * count for width, count in binary.store_bytes.items())
    return float(min(trips, max(1, math.ceil(stored / once)))) if stored and once else float(trips)


class _UnknownBoundsError(Exception):
    """A loop's bounds are known only when the kernel runs."""


def _lines(ttir: str) -> Iterator[tuple[str, int]]:
    """Each line with the number of times that a program runs it."""
    constants = {name: int(value) for name, value in _CONSTANT.findall(ttir)}
    depth, loops = 0, list[tuple[int, int]]()
    for line in ttir.splitlines():
        if "scf.while" in line:
            raise _UnknownBoundsError
        if loop := _FOR.search(line):
            if any(name not in constants for name in loop.groups()):
                raise _UnknownBoundsError
            start, end, step = (constants[name] for name in loop.groups())
            loops.append((depth, max(0, math.ceil((end - start) / step))))
        depth += line.count("{") - line.count("}")
        while loops and depth <= loops[-1][0]:
            loops.pop()
        yield line, math.prod(trips for _, trips in loops)
