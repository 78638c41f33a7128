"""Makes bundles: every binary that a kernel's winners can reach, compiled for a target."""

import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.compiler import ASTSource

from tuner.catalog import Kernel
from tuner.compile.module import load_variant
from tuner.compile.specialization import BoundCall, bind, gpu_target
from tuner.errors import UserError
from tuner.records import DimensionValue, FrozenMapping, Shape, Target
from tuner.runtime import WinnerTable
from tuner.runtime.binaries import Arguments, Calls, Need, reached
from tuner.runtime.bundle import MANIFEST, Bundle, BundledBinary, Fixed, Source
from tuner.runtime.steps import Step
from tuner.runtime.warmup import Warmed, WarmupReport, in_threads
from tuner.serving import chosen


@dataclass(frozen=True)
class Prebuild:
    """What to compile: the binaries of sizes 1 to `largest` at each of the shapes, which hold the fixed dimensions.

    Variants are those that `tuner.lookup` answers from `tables` on a GPU of the name `device`, or on any of the
    target's architecture where it is empty. `strides` are kernel arguments that differ from those of contiguous inputs.
    """

    kernel: Kernel
    target: Target
    shapes: tuple[Mapping[str, DimensionValue], ...]
    largest: int
    tables: tuple[WinnerTable, ...]
    device: str = ""
    strides: Mapping[str, int] = field(default_factory=dict)

    @property
    def dynamic(self) -> str:
        """The dimension that changes; UserError unless there is exactly one, and no shape names it."""
        names = self.kernel.spec.dynamic_dimensions
        if len(names) != 1:
            raise UserError(f"{self.kernel.name} cannot be called as an op: expected exactly one dynamic dimension.")
        if any(names[0] in shape for shape in self.shapes):
            raise UserError(f"{names[0]} is the dimension that changes.", hint="Give its bound as --max-num-tokens.")
        return names[0]


def build_bundle(request: Prebuild, folder: Path) -> tuple[Bundle, WarmupReport]:
    """Compile the binaries that `op.warmup` would load for each of the shapes, in threads; each once.

    `folder` is where bundles are to lie. UserError for dimensions, sizes or strides that the kernel does not take, and
    in Triton's interpreter.
    """
    if knobs.runtime.interpret:
        raise UserError("Nothing can be compiled under TRITON_INTERPRET=1.", hint="Unset it.")
    start = time.perf_counter()
    plans: dict[Fixed, tuple[Step, ...]] = {}
    needs: dict[str, Need] = {}
    for values in request.shapes:
        shape = request.kernel.spec.shape({**values, request.dynamic: 1})
        fixed = FrozenMapping({name: value for name, value in shape.items() if name != request.dynamic})
        plans[fixed] = chosen(request.kernel, request.tables, shape, request.device, request.target)
        for need in _needs(request, shape, plans[fixed]):
            needs.setdefault(need.calls.identity(need.key), need)
    built = in_threads(lambda need: _compile(request, need), [*needs.values()])
    bundle = Bundle(
        folder / request.kernel.name,
        request.kernel.name,
        request.kernel.source_digest,
        request.target,
        triton.__version__,
        plans,
        {name: binary for name, (binary, _) in zip(needs, built, strict=True)},
    )
    return bundle, WarmupReport(tuple(warmed for _, warmed in built), time.perf_counter() - start)


def write_bundle(bundle: Bundle) -> None:
    """Write a bundle in place of the one before it; UserError where that fails, or where the folder is another's."""
    folder = bundle.folder
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
            raise UserError(f"{folder} is not empty and no bundle.", hint="Name another folder.")
        with _beside(folder) as made:
            for name, content in bundle.files.items():
                (made / name).write_bytes(content)
            _put(made, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _put(made: Path, folder: Path) -> None:
    """Rename to `folder`; where that fails, what was there before is back."""
    before = made.parent / "before"
    if folder.exists():
        folder.rename(before)
    try:
        made.rename(folder)
    except OSError:
        if before.exists():
            before.rename(folder)
        raise


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder on the same file system, whose surroundings are removed in the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    around = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        made = around / "made"
        made.mkdir()
        yield made
    finally:
        shutil.rmtree(around)


def _needs(request: Prebuild, shape: Shape, plan: tuple[Step, ...]) -> list[Need]:
    kernel, backend = request.kernel, request.target.backend
    calls = {step.variant: Calls(step.variant, Arguments.of(kernel, step.variant, shape), backend) for step in plan}
    firsts = [step.first for step in plan[1:]]

    def calls_at(size: int) -> Calls:
        return calls[plan[bisect_right(firsts, size)].variant]

    return reached(kernel, shape, calls_at, request.largest, request.strides)


def _compile(request: Prebuild, need: Need) -> tuple[BundledBinary, Warmed]:
    start = time.perf_counter()
    loaded = load_variant(request.kernel, need.calls.compiled_variant(need.key))
    arguments = need.calls.compile_arguments(need.key, need.calls.split(need.values)[1])
    call = bind(loaded, arguments, request.target)
    source = ASTSource(loaded.function, dict(call.signature), dict(call.constexprs), dict(call.attributes))
    compiled = triton.compile(source, target=gpu_target(request.target), options=call.options.__dict__)
    suffix = next(name for name, content in compiled.asm.items() if content is compiled.kernel)
    metadata = next(Path(path) for name, path in compiled.metadata_group.items() if name.endswith(".json"))
    binary = BundledBinary(_source(source, call), suffix, compiled.kernel, metadata.read_bytes())
    warmed = Warmed(need.calls.variant, need.size, need.general, prebuilt=False, seconds=time.perf_counter() - start)
    return binary, warmed


def _source(source: Any, call: BoundCall) -> Source:
    return Source(
        source.name,
        tuple(call.signature),
        tuple(call.signature.values()),
        tuple(call.constexprs.items()),
        tuple((path, tuple((name, value) for name, value in each)) for path, each in call.attributes.items()),
    )
