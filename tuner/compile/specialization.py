"""What Triton's compile key sees of a call: exact, from Triton's own binder, with no driver and no GPU."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import compute_cache_key, create_function_from_signature

from tuner.catalog import Kernel, Launch
from tuner.compile.module import LoadedVariant, load_variant
from tuner.records import Shape, Target, Variant


@dataclass(frozen=True)
class BoundCall:
    """A call as the compiler needs it, with the key under which Triton would cache it."""

    key: str
    options: Any
    signature: Mapping[str, str]
    constexprs: Mapping[Any, Any]
    attributes: Mapping[Any, Any]


def gpu_target(target: Target) -> GPUTarget:
    """Triton's own record of a target; CUDA architectures are numbers there."""
    arch = int(target.arch) if target.backend == "cuda" else target.arch
    return GPUTarget(target.backend, arch, target.warp_size)


@lru_cache(maxsize=4096)
def _binder(function: Any, target: Target) -> tuple[Any, Any]:
    backend = make_backend(gpu_target(target))
    return backend, create_function_from_signature(function.signature, function.params, backend)


def bind(loaded: LoadedVariant, arguments: Mapping[str, Any], target: Target) -> BoundCall:
    """Bind one call's arguments (tensors may be on the meta device) as Triton's launcher would."""
    function = loaded.function
    backend, binder = _binder(function, target)
    bound, specialization, options = binder(**arguments, **loaded.options, debug=bool(function.debug))
    key = compute_cache_key({}, specialization, options)
    parsed, signature, constexprs, attributes = function._pack_args(backend, options, bound, specialization, options)
    return BoundCall(key, parsed, signature, constexprs, attributes)


def specialize(loaded: LoadedVariant, arguments: Mapping[str, Any], target: Target) -> Sequence[Any]:
    """What one call's compile key holds of each argument, in order: a type and what is known of the value."""
    _, binder = _binder(loaded.function, target)
    found: Sequence[Any] = binder(**arguments, **loaded.options, debug=bool(loaded.function.debug))[1]
    return found


def meta_launch(kernel: Kernel, variant: Variant, shape: Shape) -> Launch:
    """The launch of a variant at a shape with tensors that have no memory."""
    spec = kernel.spec
    inputs, outputs = spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta")
    return spec.launch(inputs, outputs, shape, variant.config)


def reachable_keys(kernel: Kernel, variant: Variant, shapes: Iterable[Shape], target: Target) -> dict[str, Shape]:
    """Every compile key that a variant reaches over the shapes, with the first shape that reaches it."""
    loaded = load_variant(kernel, variant)
    keys: dict[str, Shape] = {}
    for shape in shapes:
        launch = meta_launch(kernel, variant, shape)
        if 0 not in launch.grid:
            keys.setdefault(bind(loaded, launch.arguments, target).key, shape)
    return keys
