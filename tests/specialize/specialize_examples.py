"""What the tests of specialization run on: a pool that starts no process, and binaries made up."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tuner.catalog import Kernel, load_kernel
from tuner.errors import UserError
from tuner.records import DEFAULT_TARGET, Binary, FrozenMapping, Target
from tuner.specialize import Request, Scope, config_of

R = TypeVar("R")
FUSED, NORM = load_kernel("fused_inv_rope_fp8_quant"), load_kernel("rms_norm")


class InThisProcess:
    """Does what a `WorkerPool` does, one job after the other, here; what was done before it does not do again."""

    known: ClassVar[dict[object, Any]] = {}

    def __init__(self, *_: object, **__: object) -> None:
        self.jobs: list[tuple[object, ...]] = []

    def submit(self, function: Callable[..., R], *arguments: object, timeout_s: float) -> "Future[R]":
        self.jobs.append(arguments)
        future: Future[R] = Future()
        try:
            if (function, arguments) not in self.known:
                self.known[function, arguments] = function(*arguments)
            future.set_result(self.known[function, arguments])
        except UserError as error:
            future.set_exception(error)
        return future

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def request_for(
    kernel: Kernel, scope: Scope, target: Target | None = DEFAULT_TARGET, source: Path | None = None, sized: bool = True
) -> Request:
    config = config_of(kernel, None, scope)
    own = kernel.folder / kernel.spec.implementation(config.implementation).file
    return Request(kernel, config, scope, target, 2, source or own, sized)


def binary(digest: str, loads: Mapping[str, int] | None = None, stores: Mapping[str, int] | None = None) -> Binary:
    return Binary(
        digest=digest,
        specialization_key=digest,
        registers=32,
        spills=0,
        shared_bytes=0,
        instructions=100,
        load_bytes=FrozenMapping(loads or {"16": 4}),
        store_bytes=FrozenMapping(stores or {"16": 2}),
        compile_s=0.1,
    )
