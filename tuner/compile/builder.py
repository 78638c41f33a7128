"""Compiles one variant at one shape for a target; runs in a pool of worker processes."""

import math
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.compiler import ASTSource
from triton.runtime.errors import OutOfResources, PTXASError

from tuner.catalog import Kernel, Launch, load_folder
from tuner.compile.inspect import inspect
from tuner.compile.module import load_variant
from tuner.compile.repeats import code_repeats
from tuner.compile.specialization import bind, gpu_target, meta_launch
from tuner.errors import UserError
from tuner.processes import Failure
from tuner.records import Binary, Shape, Status, Target, Variant


@dataclass(frozen=True)
class CompileJob:
    """What to compile: a kernel's folder, a variant, a shape whose specialization class counts, a target."""

    folder: Path
    variant: Variant
    shape: Shape
    target: Target


@dataclass(frozen=True)
class Built:
    """A binary, the number of programs that the shape's grid starts, and how often each runs its code, if known."""

    binary: Binary
    programs: int
    repeats: float | None = None


def build(job: CompileJob) -> Built | Failure:
    """Compile for real and read the machine code.

    `compile_s` is the wall time of Triton's compile; near zero when its disk cache held the binary.
    """
    kernel = load_folder(job.folder)
    try:
        loaded = load_variant(kernel, job.variant)
        launch = _launch(kernel, job)
        if isinstance(launch, Failure):
            return launch
        call = bind(loaded, launch.arguments, job.target)
        source = ASTSource(loaded.function, dict(call.signature), dict(call.constexprs), dict(call.attributes))
        start = time.perf_counter()
        compiled = triton.compile(source, target=gpu_target(job.target), options=call.options.__dict__)
        binary = inspect(compiled, call.key, time.perf_counter() - start)
        threads = compiled.metadata.num_warps * job.target.warp_size
        return Built(binary, math.prod(launch.grid), code_repeats(compiled.asm["ttir"], binary, threads))
    except UserError:
        raise
    except OutOfResources as error:
        return Failure(Status.OUT_OF_RESOURCES, str(error))
    except PTXASError as error:
        return Failure(Status.COMPILE_ERROR, str(error).partition("Repro command:")[0].rstrip())
    except Exception:  # noqa: BLE001 - the compiler may fail in any way; the trace becomes the variant's log
        return Failure(Status.COMPILE_ERROR, traceback.format_exc())


def _launch(kernel: Kernel, job: CompileJob) -> Launch | Failure:
    """The variant's launch at the job's shape; what the spec says against it is this variant's failure."""
    try:
        return meta_launch(kernel, job.variant, job.shape)
    except UserError as error:
        return Failure(Status.COMPILE_ERROR, error.message)
