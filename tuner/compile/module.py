"""Emitted variants as loaded modules: what is compiled, checked and timed is the text that would be exported."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from tuner import settings
from tuner.catalog import Implementation, Kernel, Launch
from tuner.catalog.cache import keep
from tuner.compile import source
from tuner.compile.source import FunctionSignature, arguments, emit
from tuner.records import LAUNCH_PDL, Variant

# Triton 3.10 turns contraction of a*b+c off unless it is asked for; every binary here is built with it.
_FP_FUSION = {"enable_fp_fusion": True}


@dataclass(frozen=True)
class LoadedVariant:
    """A variant's function (a `JITFunction`, or an interpreted one) with its compile options."""

    function: Any
    options: dict[str, int | bool]

    def run(self, launch: Launch) -> None:
        """Launch once through Triton's own path; a zero in the grid launches nothing."""
        if 0 not in launch.grid:
            self.function[launch.grid](**launch.arguments, **self.options)


def emit_variant(kernel: Kernel, variant: Variant) -> str:
    """The text of a module that stands alone: see `tuner.compile.source.emit`."""
    implementation = kernel.spec.implementation(variant.config.implementation)
    return _emit(kernel.source(implementation), implementation, variant, _source_name(kernel, implementation))


def signature(kernel: Kernel, implementation: Implementation) -> FunctionSignature:
    """The arguments of an implementation's function; errors are those of `tuner.compile.source.arguments`."""
    name = _source_name(kernel, implementation)
    return arguments(kernel.source(implementation), implementation.function, source_name=name)


def foreign_imports(kernel: Kernel, implementation: Implementation) -> tuple[str, ...]:
    """The packages that an implementation's file imports and that an emitted module may not need."""
    text, name = kernel.source(implementation), _source_name(kernel, implementation)
    return source.foreign_imports(text, source_name=name)


def _source_name(kernel: Kernel, implementation: Implementation) -> str:
    return f"{kernel.name}/{implementation.file}"


@lru_cache(maxsize=4096)
def _emit(source: str, implementation: Implementation, variant: Variant, name: str) -> str:
    return emit(source, implementation, variant, source_name=name)


def load_variant(kernel: Kernel, variant: Variant) -> LoadedVariant:
    """Emit a variant into the cache folder and import it. Errors of the module's own import pass through."""
    text = emit_variant(kernel, variant)
    function = kernel.spec.implementation(variant.config.implementation).function
    return _load(text, function, tuple(variant.config.options.items()))


@lru_cache(maxsize=4096)
def _load(text: str, function: str, options: tuple[tuple[str, int], ...]) -> LoadedVariant:
    name = f"variant_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    path = settings.cache_folder() / "variants" / f"{name}.py"
    keep(path, text)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if os.environ.get("TRITON_INTERPRET") == "1":
        _unwrap_constants(module)
    passed = {name: value for name, value in options if (name, value) != (LAUNCH_PDL, 0)}  # not every target knows it
    return LoadedVariant(getattr(module, function), {**passed, **_FP_FUSION})


def _unwrap_constants(module: ModuleType) -> None:
    """Give the interpreter, which runs kernels as Python, plain numbers: `7 % tl.constexpr(4)` fails there.

    It ends one kernel before it starts the next: none waits for another, and the calls that do are unknown to it.
    """
    from triton.language import constexpr

    for name, value in list(vars(module).items()):
        if isinstance(value, constexpr):
            setattr(module, name, 0 if name == LAUNCH_PDL else value.value)
