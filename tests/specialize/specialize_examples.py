"""What the tests of specialization run on: the bundled kernels, and binaries made up."""

from collections.abc import Mapping
from pathlib import Path

from tuner.catalog import Kernel, load_kernel
from tuner.records import DEFAULT_TARGET, Binary, FrozenMapping, Target
from tuner.specialize import Request, Scope, config_of

FUSED, NORM = load_kernel("fused_inv_rope_fp8_quant"), load_kernel("rms_norm")


def request_for(
    kernel: Kernel, scope: Scope, target: Target | None = DEFAULT_TARGET, source: Path | None = None, sized: bool = True
) -> Request:
    config = config_of(kernel, None, scope, DEFAULT_TARGET)
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
