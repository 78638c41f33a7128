"""Launches one variant without Triton's JIT path: the binary is found by the call's specialization class.

What Triton's launcher decides anew at each call - signature, options, class of every argument - is fixed here but for
three questions: are the pointers and the unmarked integers multiples of 16, do all integers fit into 32 bits, and is a
profiler's launch hook set. Any other answer takes a slower way to a right binary.
"""

import gc
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from triton import knobs
from triton.runtime import driver

from tuner.catalog import Kernel
from tuner.compile.classes import Mark
from tuner.compile.module import load_variant
from tuner.errors import UserError
from tuner.records import Variant
from tuner.runtime.binaries import Arguments, Calls, Key
from tuner.runtime.bundle import Bundle, BundledBinary
from tuner.runtime.prebuilt import compiled_kernel

Grid = Callable[[int], tuple[int, int, int]]
_log = logging.getLogger("tuner")


class Launcher:
    """One variant with fixed constants on one device, safe to call from several threads.

    `launch(size, *values)`: launch on the device's current stream; values in the order of `Arguments`, tensors first;
    the device must be the current one. Binaries come from `bundle`, which must be for this source and target, where it
    has them. `compiles`, `prebuilt` and `fallbacks` count what happened since the start: binaries compiled, binaries
    from the bundle, and calls that ran on the general binary. Once it is `warm`, no call loads a binary where the
    general one will do.

    `baseline` gives what runs `instead` from the moment on when a binary cannot be compiled or loaded; without it that
    is an error.
    """

    launch: Callable[..., None]
    instead: "Launcher | None" = None

    def __init__(
        self,
        kernel: Kernel,
        variant: Variant,
        arguments: Arguments,
        grid: Grid,
        device: int,
        bundle: Bundle | None = None,
        baseline: "Callable[[], Launcher] | None" = None,
    ) -> None:
        self.variant = variant
        self.compiles = self.prebuilt = self.fallbacks = 0
        self.warm = False
        self.calls = Calls(variant, arguments, driver.active.get_current_target().backend)
        self._kernel = kernel
        self._grid = grid
        self._device = device
        self._bundle = bundle
        self._baseline = baseline
        self._binaries: dict[Key, Any] = {}
        self._loading: dict[Key, threading.Lock] = {}
        self._counting = threading.Lock()
        self.launch = self._launch_any

    def has(self, key: Key) -> bool:
        """Whether the binary of a key is loaded."""
        return key in self._binaries

    def load(self, key: Key, *values: Any) -> bool:
        """Load the binary of a key to the device, given values that have it; whether it comes from the bundle.

        Otherwise it is compiled, or taken from Triton's cache. Of several threads that ask for it one loads it. `has`
        is still false afterwards where it could not be, and the baseline runs instead.
        """
        held = self._held(key)
        with self._counting:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            if not self.has(key) and self.instead is None:
                self._try_to_load(key, held, values)
        return held is not None

    def _try_to_load(self, key: Key, held: BundledBinary | None, values: Sequence[Any]) -> None:
        try:
            self._load(key, held, values)
        except UserError:  # also of a monitor that refuses the compile
            raise
        except Exception as error:
            if self._baseline is None:
                raise
            self._give_up(self._baseline(), error)

    def _give_up(self, baseline: "Launcher", error: Exception) -> None:
        """Leave all further calls to the baseline, and say so once."""
        with self._counting:
            is_first, self.instead = self.instead is None, baseline
            self.launch = lambda size, *values: baseline.launch(size, *values)
        if is_first:
            what, why = f"{self.variant.kernel}: {self.variant.config.label}", f"{type(error).__name__}: {error}"
            _log.warning("%s cannot be compiled or loaded, and the baseline runs instead: %s", what, why)

    def _load(self, key: Key, held: BundledBinary | None, values: Sequence[Any]) -> None:
        with on_device(self._device):
            found = compiled_kernel(held) if held else self._compiled(key, self.calls.split(values)[1])
            found._init_handles()
        fast = self._fast(found) if key == self.calls.usual_key and not self.calls.is_hip else None
        with self._counting:
            self.compiles += held is None
            self.prebuilt += held is not None
            if fast and self.instead is None:
                self.launch = fast
        self._binaries[key] = found

    def _held(self, key: Key) -> BundledBinary | None:
        """The bundle's binary of a key, if it takes the arguments of this kernel."""
        held = self._bundle.binaries.get(self.calls.identity(key)) if self._bundle else None
        names = [*self.calls.arguments.names, *self.calls.arguments.constants]
        return held if held and sorted(held.source.names) == sorted(names) else None

    def _compiled(self, key: Key, numbers: Sequence[Any]) -> Any:
        loaded = load_variant(self._kernel, self.calls.compiled_variant(key))
        arguments = self.calls.compile_arguments(key, numbers)
        return loaded.function.warmup(**arguments, grid=(1,), **loaded.options)

    def _fast(self, compiled: Any) -> Callable[..., None]:
        """A function that launches `compiled` if a call has the usual key and no hook is set, written for this kernel.

        Bitwise or keeps every bit that is set anywhere: a sum of 16s has none of the lowest four, 32-bit numbers none
        above bit 30. The sign of a negative number reaches there too, which then takes the slower way. Arguments go by
        their place, a0 and so on, as the kernel's names may be any: `x`, `size`, `grid`.
        """
        arguments = self.calls.arguments
        local = {name: f"a{place}" for place, name in enumerate([*arguments.names, *arguments.constants])}
        addresses = {name: f"{local[name]}_at" for name in arguments.tensors}
        whole = [name for name in arguments.numbers if name not in arguments.floats]
        marks = dict(zip(arguments.numbers, self.calls.marks, strict=True))
        aligned = [*addresses.values(), *(local[name] for name in whole if marks[name] is Mark.NONE)]
        small = [*(local[name] for name in whole), "0"]
        ones = "".join(f" or {local[name]} == 1" for name in whole if marks[name] is Mark.ALIGNMENT)
        passed = [addresses.get(name, local[name]) for name in compiled.src.fn.arg_names]
        names = ", ".join(local[name] for name in arguments.names)
        source = "\n".join(
            [
                f"def launch(size, {names}):",
                *(f"    {address} = {local[name]}.data_ptr()" for name, address in addresses.items()),
                f"    if ({' | '.join(aligned)}) & 15 or ({' | '.join(small)}) >> 31{ones} or hooked():",
                f"        return general(size, {names})",
                "    x, y, z = grid(size)",
                f"    run(x, y, z, stream(device), function, packed, None, None, None, {', '.join(passed)})",
            ]
        )
        scope = {
            **{local[name]: value for name, value in arguments.constants.items()},
            "general": self._launch_any,
            "hooked": _hooked,
            "grid": self._grid,
            "run": compiled.run,
            "stream": driver.active.get_current_stream,
            "device": self._device,
            "function": compiled.function,
            "packed": compiled.packed_metadata,
        }
        exec(compile(source, f"<launch of {self.variant.kernel}>", "exec"), scope)
        launch: Callable[..., None] = scope["launch"]
        return launch

    def _launch_any(self, size: int, *values: Any) -> None:
        """The way of every call that is not the usual one."""
        binary = self._find(values)
        if binary is None:
            self.launch(size, *values)
            return
        grid = self._grid(size)
        tensors, numbers = self.calls.split(values)
        arguments = self.calls.arguments
        addresses = [tensor.data_ptr() for tensor in tensors]
        named = {**arguments.constants, **dict(zip(arguments.names, (*addresses, *numbers), strict=True))}
        passed = [named[name] for name in binary.src.fn.arg_names]
        stream = driver.active.get_current_stream(self._device)
        enter, leave, metadata = None, None, None
        if _hooked():
            enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
            metadata = binary.launch_metadata(grid, stream, *passed)
        binary.run(*grid, stream, binary.function, binary.packed_metadata, metadata, enter, leave, *passed)

    def _find(self, values: Sequence[Any]) -> Any:
        """The exact binary of a call, or one that is loaded now; the general one where nothing is to be loaded.

        None where it could not be loaded.
        """
        key = self.calls.key(*values)
        found = self._binaries.get(key)
        if found is not None:
            return found
        capturing = _capturing()
        if key.general in self._binaries and (self.warm or capturing or not key.aligned):
            with self._counting:
                self.fallbacks += 1
            return self._binaries[key.general]
        if capturing:
            raise UserError(
                f"{self.variant.kernel} has no binary for this call, and none can be loaded during a graph capture.",
                hint="Call op.warmup(max_num_tokens=...) before the capture.",
            )
        wanted = key if key.aligned else key.general
        with whole_parses:
            self.load(wanted, *values)
        return self._binaries.get(wanted)


class InterpretedLauncher:
    """One variant with fixed constants in Triton's interpreter (`TRITON_INTERPRET=1`)."""

    compiles = prebuilt = fallbacks = 0
    instead = None

    def __init__(self, kernel: Kernel, variant: Variant, arguments: Arguments, grid: Grid) -> None:
        self.variant = variant
        self._loaded = load_variant(kernel, variant)
        self._arguments = arguments
        self._grid = grid

    def launch(self, size: int, *values: Any) -> None:
        """Run the kernel; values in the order of `Arguments`."""
        arguments = {**self._arguments.constants, **dict(zip(self._arguments.names, values, strict=True))}
        self._loaded.function[self._grid(size)](**arguments, **self._loaded.options)


def launcher(
    kernel: Kernel,
    variant: Variant,
    arguments: Arguments,
    grid: Grid,
    device: int,
    bundle: Bundle | None,
    baseline: Callable[[], Any] | None,
) -> Launcher | InterpretedLauncher:
    """What launches a variant here."""
    if interpreting():
        return InterpretedLauncher(kernel, variant, arguments, grid)
    return Launcher(kernel, variant, arguments, grid, device, bundle, baseline)


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return bool(knobs.runtime.interpret)


def active_driver() -> Any:
    """Triton's driver of the GPU here; UserError without one."""
    try:
        return driver.active
    except RuntimeError as error:
        raise UserError(
            f"Triton finds no GPU to run on: {error}", hint="Without one, set TRITON_INTERPRET=1."
        ) from error


class on_device:  # noqa: N801 - used as a statement
    """Makes a device the current one for a while."""

    def __init__(self, device: int) -> None:
        self._device = device

    def __enter__(self) -> None:
        self._before = driver.active.get_current_device()
        if self._before != self._device:
            driver.active.set_current_device(self._device)

    def __exit__(self, *_: object) -> None:
        if self._before != self._device:
            driver.active.set_current_device(self._before)


class _WholeParses:
    """Keeps Python 3.11 from collecting garbage while any thread is within.

    Through a collection one thread enters `ast.parse` within another's, which ends as a SystemError there (CPython
    issue 106905); Triton parses a kernel's source in each compile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._paused = False

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._paused = sys.version_info < (3, 12) and gc.isenabled()
            if self._paused:
                gc.disable()
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._paused and self._threads == 0:
                gc.enable()


whole_parses = _WholeParses()


def _hooked() -> bool:
    """Whether somebody wants to hear of launches; Triton holds functions or chains of them."""
    runtime = knobs.runtime
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
