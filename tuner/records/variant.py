"""What is searched: a kernel with a config and a specialization set."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.records.frozen import FrozenMapping

# Programmatic dependent launch: a kernel may start before the one in front of it has ended, and waits for it by itself.
LAUNCH_PDL = "launch_pdl"
OPTION_NAMES = ("num_warps", "num_stages", "maxnreg", LAUNCH_PDL)


@dataclass(frozen=True)
class Config:
    """An implementation with a value for each of its parameters and compile options.

    `parameters` are the tuned `tl.constexpr` arguments; `options` are some of `OPTION_NAMES`.
    """

    implementation: str
    parameters: FrozenMapping[int] = field(default_factory=FrozenMapping)
    options: FrozenMapping[int] = field(default_factory=FrozenMapping)

    @property
    def label(self) -> str:
        values = {**self.parameters, **self.options}
        return " ".join([self.implementation, *(f"{name}={value}" for name, value in values.items())])


@dataclass(frozen=True)
class SpecializationSet:
    """The arguments that Triton must not specialize on at all, and those it must not specialize on alignment."""

    do_not_specialize: tuple[str, ...] = ()
    do_not_specialize_on_alignment: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str] = (), on_alignment: Iterable[str] = ()) -> "SpecializationSet":
        """A set in canonical order: sorted, without repeats."""
        return cls(tuple(sorted(set(names))), tuple(sorted(set(on_alignment))))

    @property
    def label(self) -> str:
        parts = list(self.do_not_specialize) + [f"{name} (alignment)" for name in self.do_not_specialize_on_alignment]
        return ", ".join(parts) or "none"


@dataclass(frozen=True)
class Variant:
    """A kernel, a config and a specialization set."""

    kernel: str
    config: Config
    specialization: SpecializationSet = field(default_factory=SpecializationSet)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same in the store, in winner tables and in emitted modules."""
        return {
            "kernel": self.kernel,
            "implementation": self.config.implementation,
            "parameters": dict(sorted(self.config.parameters.items())),
            "options": dict(sorted(self.config.options.items())),
            "do_not_specialize": list(self.specialization.do_not_specialize),
            "do_not_specialize_on_alignment": list(self.specialization.do_not_specialize_on_alignment),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Variant":
        """The inverse of `to_json`; KeyError or TypeError when the data is not a variant's."""
        return cls(
            str(data["kernel"]),
            Config(str(data["implementation"]), FrozenMapping(data["parameters"]), FrozenMapping(data["options"])),
            SpecializationSet.of(data["do_not_specialize"], data["do_not_specialize_on_alignment"]),
        )

    @property
    def digest(self) -> str:
        """16 hex digits that name the variant, the same in every process."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
