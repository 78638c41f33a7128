"""A Triton driver without a GPU: compiles for a target for real, and records launches instead of running them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver


@dataclass
class Launched:
    """One launch: the compiled kernel's metadata and source, the grid, the stream, hooks and arguments."""

    source: Any
    metadata: Any
    grid: tuple[int, int, int]
    stream: int
    device: int
    hooks: tuple[Any, Any]
    arguments: tuple[Any, ...]

    @property
    def classes(self) -> dict[str, str]:
        """The type of each argument as compiled, with a star where it is known to be divisible by 16."""
        names = self.source.fn.arg_names
        return {
            name: kind + ("*" if any(attr[0] == "tt.divisibility" for attr in self.source.attrs.get((i,), [])) else "")
            for i, (name, kind) in enumerate(zip(names, self.source.signature.values(), strict=True))
        }


class StubDriver:
    """`launches` holds what was launched. CPU tensors stand for those of the GPU; their device number is -1."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target
        self.launches: list[Launched] = []
        self.loads = 0
        self.stream = 7
        self.device = -1
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.device

    def set_current_device(self, device: int) -> None:
        self.device = device

    def get_current_stream(self, device: int) -> int:
        return self.stream

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 18}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, ...]:
        self.loads += 1
        return (None, name, 32, 0, 1024)

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        def run(x: int, y: int, z: int, stream: int, function: Any, packed: Any, extra: Any, *rest: Any) -> None:
            enter, leave, *arguments = rest
            for hook in (enter, leave):
                if hook is not None:
                    hook(extra)
            self.launches.append(
                Launched(source, metadata, (x, y, z), stream, self.device, (enter, leave), tuple(arguments))
            )

        return run


@contextmanager
def stub_driver(backend: str = "cuda", arch: int | str = 90, warp_size: int = 32) -> Iterator[StubDriver]:
    """Make a stub the active driver for a while."""
    stub = StubDriver(GPUTarget(backend, arch, warp_size))
    before = driver._active
    driver.set_active(stub)
    try:
        yield stub
    finally:
        driver._active = before
