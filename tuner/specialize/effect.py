"""What marks do to the machine code and to its time."""

from dataclasses import dataclass

from tuner.compile.inspect import narrower
from tuner.records import Binary, Evidence, Shape, SpecializationSet, Speedup

# What a mark may cost. Estimates of two binaries that differ in a few instructions are no better than that.
_LIMIT = {Evidence.MEASURED: 0.01, Evidence.ESTIMATED: 0.05}


@dataclass(frozen=True)
class TimeRatio:
    """Time with the marks over time without them, with its 95% interval; an estimate has no width."""

    ratio: Speedup
    evidence: Evidence

    @property
    def shown(self) -> float:
        """The ratio, or 1 where its interval holds 1."""
        return 1.0 if self.ratio.low <= 1 <= self.ratio.high else self.ratio.median


@dataclass(frozen=True)
class Comparison:
    """One shape without and with marks that change its compile key.

    `near` is the share of the steps for which the shape stands, `changed` the share of those whose key the marks
    change. `estimated_us` is the time of a launch without marks, None where nothing can be estimated.
    """

    shape: Shape
    near: float
    changed: float
    unmarked: Binary
    marked: Binary
    estimated_us: float | None
    time: TimeRatio | None

    @property
    def same_code(self) -> bool:
        return self.unmarked.digest == self.marked.digest

    @property
    def narrowed(self) -> tuple[str, ...]:
        """The accesses that get narrower, for people: `stores 16 -> 1 bytes`."""
        pairs = {
            "loads": (self.unmarked.load_bytes, self.marked.load_bytes),
            "stores": (self.unmarked.store_bytes, self.marked.store_bytes),
        }
        widths = {kind: narrower(*counts) for kind, counts in pairs.items()}
        return tuple(f"{kind} {found[0]} -> {found[1]} bytes" for kind, found in widths.items() if found)


@dataclass(frozen=True)
class Effect:
    """What a set of marks does, against none. `failure` says why it could not be found out."""

    marks: SpecializationSet
    comparisons: tuple[Comparison, ...] = ()
    failure: str = ""

    @property
    def same_code(self) -> bool:
        """Whether every compared shape runs the same machine code with the marks."""
        return not self.failure and all(each.same_code for each in self.comparisons)

    @property
    def narrowed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for each in self.comparisons for text in each.narrowed))

    @property
    def slowdown(self) -> float | None:
        """How much longer the steps take altogether, 0.02 for 2%; None where no time is known.

        Steps are weighted by their estimated time, and a ratio counts where its interval does not hold 1.
        """
        if self.same_code:
            return 0.0
        known = [(each, each.estimated_us) for each in self.comparisons]
        whole = sum((each.near * (time_us or 0.0) for each, time_us in known), 0.0)
        if not whole or not any(each.time for each in self.comparisons):
            return None
        return sum(each.changed * (t or 0.0) * (each.time.shown - 1) for each, t in known if each.time) / whole

    @property
    def evidence(self) -> Evidence | None:
        """What stands behind the times; None where there is none."""
        return next((each.time.evidence for each in self.comparisons if each.time and not each.same_code), None)

    @property
    def cost(self) -> str:
        """Why the marks cost time, for people; empty where they do not.

        They do where an access gets narrower, or where the steps take over 1% longer (5% by estimates).
        """
        if self.failure:
            return self.failure
        reasons = []
        if self.narrowed:
            share = sum(each.changed for each in self.comparisons if each.narrowed)
            where = "" if share > 0.999 else f" at {share:.1%} of the steps"
            reasons.append(f"narrows {' and '.join(self.narrowed)}{where}")
        if self.evidence and self.slowdown is not None and self.slowdown > _LIMIT[self.evidence]:
            reasons.append(f"makes the steps {self.slowdown:.1%} slower ({self.evidence})")
        return ", ".join(reasons)
