"""Counts what the variants of a run have in common while it goes on."""

from dataclasses import dataclass, field
from statistics import median

from tuner.records import Binary, Variant
from tuner.records.sharing import Sharing
from tuner.session.costs import was_compiled


@dataclass
class SharingCount:
    """The count of a run; each method tells of one event."""

    _variants: set[Variant] = field(default_factory=set)
    _keys: set[tuple[Variant, str]] = field(default_factory=set)
    _binaries: set[str] = field(default_factory=set)
    _compiles: int = 0
    _shared: int = 0
    _measured_s: list[float] = field(default_factory=list)

    def begun(self, variant: Variant) -> None:
        """A variant is to be evaluated."""
        self._variants.add(variant)

    def built(self, variant: Variant, binary: Binary) -> None:
        """A variant has a binary."""
        self._keys.add((variant, binary.specialization_key))
        self._binaries.add(binary.digest)
        self._compiles += was_compiled(binary.compile_s)

    def looked_at(self, binary: Binary) -> None:
        """A binary was compiled for no trial."""
        self._compiles += was_compiled(binary.compile_s)

    def measured(self, seconds: float) -> None:
        """A measurement has ended after so many seconds."""
        self._measured_s.append(seconds)

    def shared(self) -> None:
        """A built variant takes the measurement of another."""
        self._shared += 1

    @property
    def total(self) -> Sharing:
        """What was counted so far."""
        return Sharing(
            variants=len(self._variants),
            keys=len(self._keys),
            compiles=self._compiles,
            binaries=len(self._binaries),
            measurements=len(self._measured_s),
            shared=self._shared,
            saved_s=self._shared * median(self._measured_s or [0.0]),
        )
