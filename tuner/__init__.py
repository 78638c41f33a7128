"""A specialization-aware autotuner for Triton kernels in LLM serving.

    >>> import tuner
    >>> answer = tuner.lookup("fused_inv_rope_fp8_quant", num_tokens=512, num_heads=64, n_groups=8)
    >>> answer.config, answer.origin, answer.evidence

Importing this package loads neither torch, triton, optuna nor sqlalchemy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api import lookup
    from tuner.explanation import explain
    from tuner.runtime.monitor import jit_monitor
    from tuner.serving import load_op

    __version__: str

__all__ = ["explain", "jit_monitor", "load_op", "lookup"]

_HOMES = {
    "lookup": "tuner.api",
    "explain": "tuner.explanation",
    "load_op": "tuner.serving",
    "jit_monitor": "tuner.runtime.monitor",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found
    if name == "__version__":
        found = globals()[name] = _version()
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes longer than all else here

    try:
        return version("triton-variant-tuner")
    except PackageNotFoundError:  # a source tree on the path
        return "0+source"
