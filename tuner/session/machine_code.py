"""What machine code tells before anything is timed: which marks are worth a search, which sets are the same."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

from tuner.compile.builder import Built
from tuner.compile.inspect import narrower
from tuner.processes import Failure, result, wait
from tuner.records import Binary, Config, Shape, SpecializationSet, Status, Variant
from tuner.session.compile_counts import CompileCounts, with_mark
from tuner.session.ledger import Trial
from tuner.space import ImplementationSpace, SearchSpace

Compile = Callable[[Variant, Shape], "Future[Built | Failure]"]


@dataclass(frozen=True)
class Dropped:
    """A candidate that is not searched, in full or on alignment, and why."""

    name: str
    on_alignment: bool
    reason: str

    @property
    def label(self) -> str:
        return f"{self.name} (alignment)" if self.on_alignment else self.name


class MachineCode:
    """Compiles variants of a run beside each other, each once for every compile key.

    Of what `built` is asked for, `at_once` are under way at a time, so that what is late does not stand before trials.
    """

    def __init__(self, shapes: Sequence[Shape], counts: CompileCounts, compile_at: Compile, at_once: int) -> None:
        self._shapes = shapes
        self._counts = counts
        self._compile_at = compile_at
        self._at_once = at_once
        self._begun: dict[tuple[Variant, Hashable], Future[Built | Failure]] = {}
        self._examples: dict[str, Future[Built | Failure]] = {}

    def dropped_candidates(self, space: SearchSpace, until: float = math.inf) -> list[Dropped]:
        """The candidates that save no compile beside any set of the others, and narrow an access or change no code.

        What a mark does to the code is seen in one config of each implementation, the first that the space allows, at
        every shape, beside the set that compiles least. A candidate is dropped where that holds in each of them. What
        does not compile, or not by `until` (monotonic seconds), is not known, and is searched.
        """
        marks = [(name, False) for name in space.candidates] + [(name, True) for name in space.alignment_candidates]
        if not marks:
            return []
        examples = [example for each in space.implementations if (example := self._example(each))]
        if len(self.compiling(space, until)) < len(examples):
            return []
        begun = {
            mark: [self._begin_beside_least(space.kernel, *example, *mark) for example in examples]
            for mark in marks
            if not any(self._counts.saves(config, *mark) for config, _ in examples)
        }
        found = list[Dropped]()
        for (name, on_alignment), pairs in begun.items():
            effects = [_effect(_finished(each, until)) for each in pairs]
            if effects and all(effects):
                effect = min(filter(None, effects), key=lambda each: each == _NO_CHANGE)
                found.append(Dropped(name, on_alignment, f"it saves no compile, and marking it {effect}"))
        return found

    def twin(self, variant: Variant, until: float = math.inf) -> Variant | None:
        """The variant under the set that compiles least, if that compiles less into the same code at every shape.

        None too where that is not known by `until` (monotonic seconds).
        """
        least = self._counts.least(variant.config)
        if self._counts.of(least) >= self._counts.of(variant):
            return None
        pairs = _finished(self._begin(variant, least, self._shapes), until)
        return least if _effect(pairs) == _NO_CHANGE else None

    def built(self, trials: Sequence[Trial], until: float = math.inf) -> dict[Trial, Built]:
        """What each variant has at its shape; without those that do not compile, or not by `until`."""
        futures = {trial: self._once(*trial) for trial in trials if self._is_begun(*trial) or self._has_room(until)}
        wait(futures.values(), until)
        found = {trial: result(future) for trial, future in futures.items() if future.done()}
        return {trial: each for trial, each in found.items() if isinstance(each, Built)}

    def stop(self) -> None:
        """Give up what is under way, with its workers; it begins anew when it is needed."""
        for future in (*self._examples.values(), *self._begun.values()):
            future.cancel()

    @property
    def binaries(self) -> list[Binary]:
        """All that was compiled so far."""
        finished = [future for future in (*self._examples.values(), *self._begun.values()) if future.done()]
        return [each.binary for future in finished if isinstance(each := result(future), Built)]

    def compiling(self, space: SearchSpace, until: float = math.inf) -> list[ImplementationSpace]:
        """The implementations of which an example is compiled by `until`, with no argument marked; it may be too large.

        Other processes compile it. So this one need not fear what their modules do when they are imported, as counting
        keys does.
        """
        for each in space.implementations:
            if each.name not in self._examples and (example := self._example(each)):
                config, (shape, *_) = example
                self._examples[each.name] = self._compile_at(Variant(space.kernel, config, _NO_MARKS), shape)
        wait(self._examples.values(), until)
        return [
            each
            for each in space.implementations
            if each.name in self._examples and _was_compiled(self._examples[each.name])
        ]

    def _example(self, space: ImplementationSpace) -> tuple[Config, list[Shape]] | None:
        """The first config of an implementation, with the shapes at which it is allowed; None where it has none."""
        for config in islice((config for shape in self._shapes for config in space.configs(shape)), 1):
            return config, [shape for shape in self._shapes if space.allows(config, shape)]
        return None

    def _begin_beside_least(
        self, kernel: str, config: Config, shapes: Sequence[Shape], name: str, on_alignment: bool
    ) -> "list[_Pair]":
        least = self._counts.smallest_set(config)
        without = SpecializationSet.of(
            (each for each in least.do_not_specialize if each != name),
            (each for each in least.do_not_specialize_on_alignment if each != name),
        )
        marked = with_mark(without, name, on_alignment)
        return self._begin(Variant(kernel, config, without), Variant(kernel, config, marked), shapes)

    def _begin(self, first: Variant, second: Variant, shapes: Sequence[Shape]) -> "list[_Pair]":
        """Compile both at each shape that differs from the others in a compile key of one of them."""
        keys: dict[Hashable, _Pair] = {}
        for shape in shapes:
            pair = tuple(self._counts.key(variant, shape) for variant in (first, second))
            if pair not in keys:
                keys[pair] = (self._once(first, shape), self._once(second, shape))
        return list(keys.values())

    def _once(self, variant: Variant, shape: Shape) -> "Future[Built | Failure]":
        name = (variant, self._counts.key(variant, shape))
        if not self._is_begun(variant, shape):
            self._begun[name] = self._compile_at(variant, shape)
        return self._begun[name]

    def _is_begun(self, variant: Variant, shape: Shape) -> bool:
        """Whether it is; one that was lost with its workers is not."""
        name = (variant, self._counts.key(variant, shape))
        return name in self._begun and not self._begun[name].cancelled()

    def _has_room(self, until: float) -> bool:
        """Whether another compile may begin by then; waits for others to end where there are enough."""
        while time.monotonic() < until:
            under_way = [each for each in self._begun.values() if not each.done()]
            if len(under_way) < self._at_once:
                return True
            wait(under_way, until, first=True)
        return False


_NO_MARKS = SpecializationSet()
_Pair = tuple["Future[Built | Failure]", "Future[Built | Failure]"]
_NO_CHANGE = "changes no machine code"


def _finished(pairs: Sequence[_Pair], until: float) -> list[tuple[Binary, Binary]] | None:
    """The binaries; None when one of them could not be compiled, or not by then."""
    if not wait([each for pair in pairs for each in pair], until):  # what is late goes on: its worker is needed
        return None
    found = []
    for first, second in pairs:
        one, other = result(first), result(second)
        if isinstance(one, Failure) or isinstance(other, Failure):
            return None
        found.append((one.binary, other.binary))
    return found


def _was_compiled(future: "Future[Built | Failure]") -> bool:
    """Whether it is done, and all that failed, if anything, is that the result is too large."""
    if not future.done():
        return False
    found = result(future)
    return isinstance(found, Built) or found.status is Status.OUT_OF_RESOURCES


def _effect(pairs: Sequence[tuple[Binary, Binary]] | None) -> str | None:
    """What the second binaries are beside the first: narrower, or the same; None for what only a timing tells."""
    if not pairs:
        return None
    if all(one.digest == other.digest for one, other in pairs):
        return _NO_CHANGE
    return next((text for pair in pairs for text in _narrowed(*pair)), None)


def _narrowed(wide: Binary, narrow: Binary) -> Iterator[str]:
    for kind, before, after in (
        ("stores", wide.store_bytes, narrow.store_bytes),
        ("loads", wide.load_bytes, narrow.load_bytes),
    ):
        if widths := narrower(before, after):
            yield f"narrows {kind} from {widths[0]} bytes to {widths[1]}"
