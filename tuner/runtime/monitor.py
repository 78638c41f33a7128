"""Counts and names what Triton compiles, of any kernel in the process, and says which argument caused it."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from triton import knobs
from triton.compiler import CompiledKernel

from tuner.compile.classes import ArgumentClass
from tuner.errors import UnknownNameError, UserError

_log = logging.getLogger("tuner")

Classes = Mapping[str, ArgumentClass]


class OnCompile(StrEnum):
    """What a compile leads to besides being counted."""

    COUNT = "count"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True)
class Change:
    """An argument whose class differs from that of an earlier binary, and what to do about it."""

    argument: str
    before: str
    after: str
    advice: str

    def __str__(self) -> str:
        return f"{self.argument} was {self.before} and is {self.after}: {self.advice}"


@dataclass(frozen=True)
class Compile:
    """One binary that Triton made, or took from its cache on disk.

    `changes` compares it with the most similar earlier binary of the same function; it is empty for the first one, and
    where classes are the same but options, target or device differ. `seconds` is None for a compile that was refused.
    """

    kernel: str
    classes: Classes
    is_first: bool
    changes: tuple[Change, ...]
    seconds: float | None = None
    from_cache: bool = False

    @property
    def cause(self) -> str:
        """What differs from before."""
        if self.changes:
            return "; ".join(map(str, self.changes))
        return "its first binary" if self.is_first else "the same classes, but other options, another target or device"

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.kernel}, refused: {self.cause}"
        how = "loaded from Triton's cache" if self.from_cache else "compiled"
        return f"{self.kernel}, {how} in {self.seconds * 1e3:.0f} ms: {self.cause}"


@dataclass
class JitMonitor:
    """What was compiled so far."""

    on_compile: OnCompile
    compiles: list[Compile] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.compiles)

    def __str__(self) -> str:
        return "\n".join([f"{self.count} compiles", *map(str, self.compiles)])


@contextmanager
def jit_monitor(on_compile: OnCompile | str = OnCompile.COUNT) -> Iterator[JitMonitor]:
    """Watch every Triton compile of the process until the block ends; earlier hooks stay in place.

    `warn` logs each as a warning of the logger `tuner`; `error` refuses it before it starts, by a UserError in the call
    that needed it. (A direct call of `triton.compile` can be refused only when it is done.)
    """
    if on_compile not in list(OnCompile):
        raise UnknownNameError("answer to a compile", str(on_compile), [each.value for each in OnCompile])
    monitor = JitMonitor(OnCompile(on_compile))
    _hooks.add(monitor)
    try:
        yield monitor
    finally:
        _hooks.remove(monitor)


class _Hooks:
    """Triton's hooks, taken while there is a monitor. They pass on to those that were there before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._monitors: list[JitMonitor] = []
        self._seen: dict[Any, list[Classes]] = {}
        self._listener_before: Callable[..., Any] | None = None
        self._cache_hook_before: Callable[..., Any] | None = None
        self._listener: Callable[..., Any] = self._compiled
        self._cache_hook: Callable[..., Any] = self._about_to_compile

    def add(self, monitor: JitMonitor) -> None:
        with self._lock:
            if not self._monitors:
                self._listener_before = knobs.compilation.listener
                self._cache_hook_before = knobs.runtime.jit_cache_hook
                knobs.compilation.listener = self._listener
                knobs.runtime.jit_cache_hook = self._cache_hook
            self._monitors.append(monitor)

    def remove(self, monitor: JitMonitor) -> None:
        with self._lock:
            self._monitors = [each for each in self._monitors if each is not monitor]
            if self._monitors:
                return
            self._seen.clear()
            # Whoever hooked in later still calls these, which then only pass on.
            if knobs.compilation.listener is self._listener:
                knobs.compilation.listener = self._listener_before
            if knobs.runtime.jit_cache_hook is self._cache_hook:
                knobs.runtime.jit_cache_hook = self._cache_hook_before

    def _about_to_compile(self, **event: Any) -> bool | None:
        """Before a compile of a JIT function: refuse it, or let an earlier hook skip it."""
        refusing = [each for each in self._monitors if each.on_compile is OnCompile.ERROR]
        if refusing:
            function, call = event["fn"].jit_function, event["compile"]
            classes = _classes(function, call["signature"], call["constants"], call["configs"][0])
            self._refuse(refusing, self._described(function, classes))
        return self._cache_hook_before(**event) if self._cache_hook_before else None

    def _compiled(self, **event: Any) -> None:
        """After a compile, or after the cache on disk had the binary."""
        if self._listener_before:
            self._listener_before(**event)
        source, seconds, cached = event["src"], event["times"].total / 1e6, event["cache_hit"]
        function = getattr(source, "fn", None)
        if function is None:
            found = Compile(str(source.name), {}, True, (), seconds, cached)
        else:
            classes = _classes(function, source.signature, source.constants, source.attrs)
            found = self._described(function, classes, seconds, cached)
        for each in self._monitors:
            each.compiles.append(found)
            if each.on_compile is OnCompile.WARN:
                _log.warning("Triton: %s", found)
        self._refuse([each for each in self._monitors if each.on_compile is OnCompile.ERROR], found, counted=True)

    def _described(
        self, function: Any, classes: Classes, seconds: float | None = None, cached: bool = False
    ) -> Compile:
        with self._lock:
            seen = self._seen.setdefault(function, [])
            earlier = [*_compiled_before(function), *seen]
            if seconds is not None:
                seen.append(classes)
        name = f"{function.module}.{function.fn.__qualname__}"
        changes = min((_changes(function, each, classes) for each in reversed(earlier)), key=len, default=())
        return Compile(name, classes, not earlier, changes, seconds, cached)

    @staticmethod
    def _refuse(monitors: list[JitMonitor], found: Compile, counted: bool = False) -> None:
        for each in monitors:
            if not counted:
                each.compiles.append(found)
        if monitors:
            hint = "Compile it before, or watch with on_compile='warn'."
            raise UserError(f"{found.kernel} was about to compile, which is refused here: {found.cause}.", hint=hint)


_hooks = _Hooks()


def _compiled_before(function: Any) -> list[Classes]:
    """The classes of every binary that a function has in memory."""
    held = [kernel for cache in list(function.device_caches.values()) for kernel in list(cache[0].values())]
    sources = [kernel.src for kernel in held if isinstance(kernel, CompiledKernel)]
    return [_classes(function, each.signature, each.constants, each.attrs) for each in sources]


def _classes(function: Any, signature: Any, constants: Any, attributes: Any) -> Classes:
    """The class of each argument from what Triton compiles by, where arguments go by name or position."""
    classes: dict[str, ArgumentClass] = {}
    for place, name in enumerate(function.arg_names):
        kind = signature[name]
        value = repr(constants[(place,)]) if kind == "constexpr" else None
        divisible = any(each[0] == "tt.divisibility" for each in attributes.get((place,), ()))
        classes[name] = ArgumentClass(str(kind), value, divisible)
    return classes


def _changes(function: Any, before: Classes, after: Classes) -> tuple[Change, ...]:
    fixed = {parameter.name for parameter in function.params if parameter.is_constexpr}
    return tuple(
        Change(name, before[name].label, found.label, _advice(name, before[name], found, name in fixed))
        for name, found in after.items()
        if found != before[name]
    )


def _advice(name: str, before: ArgumentClass, after: ArgumentClass, is_constexpr: bool) -> str:
    types = {each.type for each in (before, after) if each.type != "constexpr"}
    if is_constexpr:
        return "each value of a tl.constexpr compiles anew; make it a run-time argument if it changes while serving"
    if any(each.startswith("*") for each in types):
        if len(types) > 1:
            return "each type compiles anew; compile it ahead"
        return "pass pointers that are multiples of 16, or compile both ahead"
    if before.type != after.type and types & {"i64", "u64"}:
        return "no mark keeps 64-bit numbers from compiling anew; compile both ahead"
    return f"mark {name!r} in do_not_specialize, unless wide loads or stores need it"
