"""Which binary a call needs, and which ones the sizes up to a bound reach. Needs no driver.

A warm-up and a bundle (`tuner prebuild`) ask the same function, so that they hold the same binaries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuner.catalog import Kernel
from tuner.compile.classes import Mark
from tuner.errors import UnknownNameError, UserError
from tuner.records import Shape, SpecializationSet, Variant
from tuner.runtime.bundle import identity

_INT32 = range(-(2**31), 2**31)
# From so many bytes on Triton's AMD backend does not address a tensor by 32-bit offsets.
_WIDE_BYTES = 2**31
_WIDE_TYPE = 8
_DIVISIBLE, _ONE = 1, 2


@dataclass(frozen=True)
class Key:
    """What decides which binary a call needs.

    `aligned`: every pointer is a multiple of 16. `wide`: on AMD, a tensor of 2 GiB or more is among them. `numbers`: a
    code for each other argument, whether it needs 64 bits, is a multiple of 16, or is 1, as far as its mark lets Triton
    see it.
    """

    aligned: bool
    wide: bool
    numbers: tuple[int, ...]

    @property
    def general(self) -> "Key":
        """The key of the binary that assumes nothing but the types."""
        return Key(False, self.wide, tuple(code & _WIDE_TYPE for code in self.numbers))


@dataclass(frozen=True)
class Arguments:
    """The run-time arguments of a kernel: names and types of the tensors, names of the numbers; and the constants."""

    tensors: Mapping[str, torch.dtype]
    numbers: tuple[str, ...]
    floats: frozenset[str]
    constants: Mapping[str, Any]

    @classmethod
    def split(cls, names: Sequence[str], example: Mapping[str, Any]) -> "Arguments":
        """From the names that change between calls and the arguments of one call; UserError where these do not fit."""
        tensors = {name: value.dtype for name, value in example.items() if isinstance(value, Tensor)}
        if [*tensors] != [*names[: len(tensors)]] or not example.keys() >= {*names}:
            raise UserError(f"op.py passes {', '.join(names)}; expected arguments of the kernel, first {[*tensors]}.")
        numbers = tuple(names[len(tensors) :])
        floats = frozenset(name for name in numbers if isinstance(example[name], float))
        return cls(tensors, numbers, floats, {name: value for name, value in example.items() if name not in names})

    @classmethod
    def of(cls, kernel: Kernel, variant: Variant, shape: Shape) -> "Arguments":
        """Those of calls with the fixed dimensions of a shape; any size of the dynamic one would do."""
        return cls.split(kernel.host_function.arguments, _meta_arguments(kernel, variant, shape))

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.tensors, *self.numbers)


class Calls:
    """The calls of one variant with fixed constants on one backend, `cuda` or `hip`."""

    def __init__(self, variant: Variant, arguments: Arguments, backend: str) -> None:
        self.variant = variant
        self.arguments = arguments
        self.is_hip = backend == "hip"
        self.marks = [
            None if name in arguments.floats else _mark(name, variant.specialization) for name in arguments.numbers
        ]
        self._general = Variant(variant.kernel, variant.config, SpecializationSet.of(arguments.names))

    def split(self, values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Tensors and numbers."""
        count = len(self.arguments.tensors)
        return values[:count], values[count:]

    def key(self, *values: Any) -> Key:
        """Exactly what Triton's binder would tell apart, or more."""
        tensors, numbers = self.split(values)
        aligned = not any(tensor.data_ptr() % 16 for tensor in tensors)
        wide = self.is_hip and any(tensor.untyped_storage().nbytes() >= _WIDE_BYTES for tensor in tensors)
        return Key(aligned, wide, tuple(map(_code, numbers, self.marks)))

    @property
    def usual_key(self) -> Key:
        """The key of calls in which everything that may be a multiple of 16 is one."""
        return Key(True, False, tuple(_code(16, mark) for mark in self.marks))

    def compiled_variant(self, key: Key) -> Variant:
        """The variant to compile for a key: without aligned pointers every run-time argument is marked."""
        return self.variant if key.aligned else self._general

    def compile_arguments(self, key: Key, numbers: Sequence[Any]) -> dict[str, Any]:
        """Every argument of a call that has the key, with tensors that have no memory, given numbers that have it."""
        size = _WIDE_BYTES if key.wide else 1
        pointers = {
            name: torch.empty(size, dtype=dtype, device="meta") for name, dtype in self.arguments.tensors.items()
        }
        return {**pointers, **dict(zip(self.arguments.numbers, numbers, strict=True)), **self.arguments.constants}

    def identity(self, key: Key) -> str:
        """The name of a key's binary in a bundle; UserError where a constant is no plain value."""
        tensors = {name: str(dtype) for name, dtype in self.arguments.tensors.items()}
        return identity(
            {
                "variant": self.variant.to_json(),
                "tensors": tensors,
                "numbers": self.arguments.numbers,
                "floats": sorted(self.arguments.floats),
                "constants": dict(self.arguments.constants),
                "key": [key.aligned, key.wide, key.numbers],
            }
        )


@dataclass(frozen=True)
class Need:
    """A binary that is reached, with the values of a call that reaches it.

    `size` is the first size that does. `general`: it assumes nothing of alignment, and serves every call for which
    there is no other.
    """

    calls: Calls
    key: Key
    size: int
    values: tuple[Any, ...]
    general: bool


def reached(
    kernel: Kernel, shape: Shape, calls_at: Callable[[int], Calls], largest: int, strides: Mapping[str, int]
) -> list[Need]:
    """Each binary once that contiguous calls with 1 to `largest` tokens reach, and a general one for each of them.

    `shape` has the fixed dimensions. `strides` are arguments that differ from those of contiguous inputs. UserError for
    a size below 1 or an argument that the kernel does not have.
    """
    if largest < 1:
        raise UserError(f"max_num_tokens is {largest}; expected at least 1.")
    names = kernel.host_function.arguments
    for name in strides:
        if name not in names:
            raise UnknownNameError(f"argument of {kernel.name}", name, names)
    needs: dict[tuple[int, Key], Need] = {}
    for size in range(1, largest + 1):
        calls = calls_at(size)
        for need in _needs_at(kernel, calls, shape, size, strides):
            needs.setdefault((id(calls), need.key), need)
    return list(needs.values())


def _needs_at(kernel: Kernel, calls: Calls, shape: Shape, size: int, strides: Mapping[str, int]) -> Iterator[Need]:
    (dynamic,) = kernel.spec.dynamic_dimensions
    arguments = {**_meta_arguments(kernel, calls.variant, Shape({**shape, dynamic: size})), **strides}
    values = tuple(arguments[name] for name in kernel.host_function.arguments)
    exact = calls.key(*values)
    yield Need(calls, exact, size, values, general=False)
    yield Need(calls, exact.general, size, values, general=True)


def _meta_arguments(kernel: Kernel, variant: Variant, shape: Shape) -> Mapping[str, Any]:
    inputs, outputs = kernel.spec.make_inputs(shape, "meta", 0), kernel.spec.make_outputs(shape, "meta")
    return kernel.spec.launch(inputs, outputs, shape, variant.config).arguments


def _code(value: float, mark: Mark | None) -> int:
    """What Triton sees of a number; a floating-point argument has no mark and one class."""
    if mark is None:
        return 0
    code = 0 if value in _INT32 else _WIDE_TYPE
    if mark is not Mark.SPECIALIZATION and value == 1:
        return code | _ONE
    return code | _DIVISIBLE if mark is Mark.NONE and value % 16 == 0 else code


def _mark(name: str, marks: SpecializationSet) -> Mark:
    if name in marks.do_not_specialize:
        return Mark.SPECIALIZATION
    return Mark.ALIGNMENT if name in marks.do_not_specialize_on_alignment else Mark.NONE
