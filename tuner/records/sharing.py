"""What the variants of a run had in common."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """How many binaries came of a run's variants, and what sharing their measurements saved.

    `keys` are compile keys of single variants, `binaries` distinct machine codes; `compiles` are those that Triton's
    disk cache did not hold, with those before the search that only look at machine code. Each evaluation that was built
    had a measurement of its own or shared one, of this run or an earlier one; without a GPU a measurement is a check in
    the interpreter. `saved_s` is what the shared ones would have taken, in seconds, at the median of the others.
    """

    variants: int
    keys: int
    compiles: int
    binaries: int
    measurements: int
    shared: int
    saved_s: float
