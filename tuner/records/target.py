"""What code is compiled for."""

from dataclasses import dataclass

from tuner.errors import UnknownNameError


@dataclass(frozen=True)
class Target:
    """A Triton backend with an architecture, written `cuda:90` or `hip:gfx942`."""

    backend: str
    arch: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read `backend:arch`; UnknownNameError for one that tuner does not know."""
        if text not in KNOWN_TARGETS:
            raise UnknownNameError("target", text, KNOWN_TARGETS)
        backend, arch = text.split(":")
        return cls(backend, arch)

    @property
    def warp_size(self) -> int:
        """Threads in a warp (a wavefront on AMD)."""
        return 64 if self.backend == "hip" else 32

    @property
    def has_launch_pdl(self) -> bool:
        """Whether kernels can be launched with `launch_pdl`: on NVIDIA from Hopper on."""
        return self.backend == "cuda" and int(self.arch) >= 90

    def __str__(self) -> str:
        return f"{self.backend}:{self.arch}"


# The architectures that Triton 3.6 to 3.9 compile for and whose limits `tuner.measure.static` knows.
KNOWN_TARGETS = ("cuda:80", "cuda:89", "cuda:90", "cuda:100", "hip:gfx942", "hip:gfx950")
DEFAULT_TARGET = Target("cuda", "90")
