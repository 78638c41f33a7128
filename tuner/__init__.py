"""A specialization-aware autotuner for Triton kernels in LLM serving.

    >>> import tuner
    >>> answer = tuner.lookup("fused_inv_rope_fp8_quant", num_tokens=512, num_heads=64, n_groups=8)
    >>> answer.config, answer.origin, answer.evidence

Importing this package loads neither torch, triton, optuna nor sqlalchemy.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api import lookup

__all__ = ["lookup"]

try:
    __version__ = version("triton-variant-tuner")
except PackageNotFoundError:  # a source tree on the path
    __version__ = "0+source"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from tuner import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
