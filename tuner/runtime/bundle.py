"""A bundle: binaries compiled ahead for one kernel, source, target and Triton version. Standard library only.

A folder for each kernel, with `manifest.json` and two files for each binary: the machine code, and the metadata that
Triton's own cache keeps beside it. The manifest says which variant runs from which size on, names each binary by what
decides over it (`identity`) and holds the SHA-256 of every file and of itself.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.records import DimensionValue, FrozenMapping, Shape, Target, Variant
from tuner.runtime.steps import Step

if TYPE_CHECKING:
    from tuner.catalog import KernelSpec

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TYPE = re.compile(r"\*?\w+", re.ASCII)
_IDENTITY = re.compile(r"[0-9a-f]{32}")

Fixed = FrozenMapping[DimensionValue]


class Refusal(StrEnum):
    """Why a bundle is not used."""

    MISSING = "missing"
    DAMAGED = "damaged"
    SCHEMA = "another schema"
    KERNEL = "another kernel"
    SOURCE = "another source"
    TRITON = "another Triton"
    TUNER = "another tuner"
    TARGET = "another target"


@dataclass(frozen=True)
class Refused:
    """A bundle that is not used, and why; every binary is then compiled."""

    folder: Path
    why: Refusal
    detail: str

    def __str__(self) -> str:
        return f"The bundle {self.folder} is refused ({self.why}): {self.detail}."


@dataclass(frozen=True)
class Source:
    """What Triton's launcher asks of the source of a binary, all of it plain data.

    `names` are the kernel's arguments in order, `types` Triton's type of each; `constants` and `attributes` go by the
    argument's path, as in Triton's `ASTSource`.
    """

    name: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    constants: tuple[tuple[tuple[int, ...], Any], ...]
    attributes: tuple[tuple[tuple[int, ...], tuple[tuple[str, int], ...]], ...]


@dataclass(frozen=True)
class BundledBinary:
    """A binary: its source, machine code and Triton's metadata, checked against the manifest."""

    source: Source
    code_suffix: str
    code: bytes = field(repr=False)
    metadata: bytes = field(repr=False)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and is sound. `steps` go by the fixed dimensions, `binaries` by `identity`."""

    folder: Path
    kernel: str
    source_digest: str
    target: Target
    triton: str
    steps: Mapping[Fixed, tuple[Step, ...]]
    binaries: Mapping[str, BundledBinary]

    def steps_of(self, shape: Shape, dynamic: str) -> tuple[Step, ...] | None:
        """The variant at every size for the fixed dimensions of a shape; None when they are not in the bundle."""
        return self.steps.get(FrozenMapping({name: value for name, value in shape.items() if name != dynamic}))

    def variant_at(self, shape: Shape, dynamic: str) -> Variant | None:
        """The variant that runs at a shape; None when its fixed dimensions are not in the bundle."""
        steps = self.steps_of(shape, dynamic) or ()
        return next((each.variant for each in reversed(steps) if each.first <= shape.size(dynamic)), None)

    def refused_on(self, target: str) -> Refused | None:
        """Why it cannot be used on a target, if it cannot."""
        if str(self.target) == target:
            return None
        return Refused(self.folder, Refusal.TARGET, f"it is for {self.target}, here is {target}")

    def refused_for(self, spec: "KernelSpec") -> Refused | None:
        """Why it cannot be used for a kernel whose variants its own are not, if it cannot."""
        parameters = {each.name: {*each.parameters} for each in spec.implementations}
        for step in (each for steps in self.steps.values() for each in steps):
            config = step.variant.config
            if {*config.parameters} != parameters.get(config.implementation):
                detail = f"{spec.name} has no implementation {config.implementation!r} with {[*config.parameters]}"
                return Refused(self.folder, Refusal.DAMAGED, detail)
        return None

    def to_json(self) -> dict[str, Any]:
        """The manifest. The same bundle gives the same text."""
        plans = [
            {
                "shape": dict(fixed),
                "steps": [
                    {"first": each.first, "variant": each.variant.to_json(), "tuned": each.tuned} for each in steps
                ],
            }
            for fixed, steps in self.steps.items()
        ]
        content = {
            "schema": SCHEMA_VERSION,
            "kernel": self.kernel,
            "source_digest": self.source_digest,
            "target": str(self.target),
            "triton": self.triton,
            "tuner": compiler_digest(),
            "plans": plans,
            "binaries": {name: _binary_to_json(each) for name, each in sorted(self.binaries.items())},
        }
        return {**content, "sha256": _digest_of(content)}

    @property
    def files(self) -> dict[str, bytes]:
        """Every file by its name."""
        found = {MANIFEST: (json.dumps(self.to_json(), indent=1) + "\n").encode()}
        for name, binary in self.binaries.items():
            code, metadata = _file_names(name, binary.code_suffix)
            found |= {code: binary.code, metadata: binary.metadata}
        return found


def identity(content: Mapping[str, Any]) -> str:
    """32 hex digits that name plain data; UserError where it is not plain."""
    try:
        return hashlib.sha256(_canonical(content)).hexdigest()[:32]
    except TypeError as error:
        raise UserError(f"A constant of the kernel cannot be named in a bundle: {error}.") from error


@cache
def compiler_digest() -> str:
    """16 hex digits that name tuner's own code that decides over a binary: what is emitted, and under which key."""
    root = Path(__file__).parents[1]
    files = [*sorted((root / "compile").glob("*.py")), root / "runtime" / "binaries.py"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def read_bundle(folder: Path, kernel: str, source_digest: str, triton: str) -> Bundle | Refused:
    """The bundle of a kernel below a folder, checked whole, or why it is refused. Never raises."""
    place = folder / kernel
    try:
        data = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Refused(
            place, Refusal.MISSING, f"it has no {MANIFEST}; `tuner prebuild {kernel} -o {folder}` writes one"
        )
    except (OSError, ValueError, RecursionError) as error:
        return Refused(place, Refusal.DAMAGED, f"{MANIFEST} cannot be read: {error}")
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        return Refused(place, Refusal.DAMAGED, f"{MANIFEST} is no manifest")
    for why, name, found, expected in (
        (Refusal.SCHEMA, "schema", data["schema"], SCHEMA_VERSION),
        (Refusal.KERNEL, "kernel", data.get("kernel"), kernel),
        (Refusal.SOURCE, "source", data.get("source_digest"), source_digest),
        (Refusal.TRITON, "Triton", data.get("triton"), triton),
        (Refusal.TUNER, "tuner", data.get("tuner"), compiler_digest()),
    ):
        if found != expected:
            return Refused(place, why, f"its {name} is {found}, here it is {expected}")
    try:
        return _checked(place, data)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, UserError) as error:
        return Refused(place, Refusal.DAMAGED, f"{type(error).__name__}: {error}")


def _checked(folder: Path, data: dict[str, Any]) -> Bundle:
    """The bundle of a manifest; ValueError where a digest is wrong, or what it says cannot be."""
    if data.pop("sha256") != _digest_of(data):
        raise ValueError(f"{MANIFEST} has another digest than it says")
    steps = {Fixed(plan["shape"]): _read_steps(data["kernel"], plan["steps"]) for plan in data["plans"]}
    binaries = {name: _read_binary(folder, name, each) for name, each in data["binaries"].items()}
    target = Target(*data["target"].split(":", 1))
    return Bundle(folder, data["kernel"], data["source_digest"], target, data["triton"], steps, binaries)


def _read_steps(kernel: str, data: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    steps = tuple(
        Step(each["first"], Variant.from_json(each["variant"]), each.get("tuned", True) is True) for each in data
    )
    firsts = [each.first for each in steps]
    if firsts[:1] != [1] or any(type(first) is not int for first in firsts):
        raise ValueError(f"steps begin at {firsts}; expected whole numbers, the first of them 1")
    if any(before >= after for before, after in pairwise(firsts)):
        raise ValueError(f"steps begin at {firsts}; expected each after the one before")
    for variant in (each.variant for each in steps):
        values = {**variant.config.parameters, **variant.config.options}.values()
        if variant.kernel != kernel or any(not isinstance(value, int) for value in values):
            raise ValueError(f"{variant.to_json()} is no variant of {kernel}")
    return steps


def _read_binary(folder: Path, name: str, data: Mapping[str, Any]) -> BundledBinary:
    """A binary of the manifest, of which names become those of files and of variables; ValueError for others."""
    suffix = data["code_suffix"]
    for pattern, words in (
        (_IDENTITY, [name]),
        (_NAME, [data["name"], suffix, *data["names"]]),
        (_TYPE, data["types"]),
    ):
        for word in words:
            if not pattern.fullmatch(word):
                raise ValueError(f"{word!r} is no {pattern.pattern}")
    read = []
    for file, digest in zip(_file_names(name, suffix), data["sha256"], strict=True):
        content = (folder / file).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{file} is not the file that the manifest names")
        read.append(content)
    source = Source(
        data["name"],
        tuple(data["names"]),
        tuple(data["types"]),
        tuple((tuple(path), value) for path, value in data["constants"]),
        tuple((tuple(path), tuple((kind, value) for kind, value in each)) for path, each in data["attributes"]),
    )
    return BundledBinary(source, suffix, read[0], read[1])


def _binary_to_json(binary: BundledBinary) -> dict[str, Any]:
    source = binary.source
    return {
        "name": source.name,
        "names": source.names,
        "types": source.types,
        "constants": source.constants,
        "attributes": source.attributes,
        "code_suffix": binary.code_suffix,
        "sha256": [hashlib.sha256(content).hexdigest() for content in (binary.code, binary.metadata)],
    }


def _file_names(name: str, suffix: str) -> tuple[str, str]:
    """Machine code and metadata."""
    return f"{name}.{suffix}", f"{name}.json"


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
