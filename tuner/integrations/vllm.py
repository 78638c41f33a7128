"""A plugin for vLLM (entry point group `vllm.general_plugins`): its op is replaced by the tuned one.

vLLM calls `register` in each of its processes before it loads a model. Nothing of vLLM is imported here: the op is
replaced when the model's own import loads it, and models that do not use it load nothing. Where the function has
another signature than the tuned op, and on AMD, whose FP8 type may be another, it stays, and a warning says so.
"""

import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import tuner
from tuner.api import winner_tables
from tuner.catalog import load_kernel

OP = "fused_inv_rope_fp8_quant"
# Where vLLM has had the op; the name of the module is that of its function.
MODULES = (f"vllm.models.deepseek_v4.common.ops.{OP}", f"vllm.v1.attention.ops.deepseek_v4_ops.{OP}")

_log = logging.getLogger("tuner")


def register() -> None:
    """Replace the op now where it is loaded, else when it is; may be called again. Never raises."""
    try:
        if "vllm" not in sys.modules and find_spec("vllm") is None:
            _log.warning("vLLM is not installed: %s is not replaced.", OP)
            return
        if not any(isinstance(each, _Finder) for each in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        for module in [sys.modules.get(name) for name in MODULES]:
            if module is not None:
                _replace(module)
    except Exception as error:  # noqa: BLE001 - a plugin must not keep the server from starting
        _log.warning("%s is not replaced: %s: %s.", OP, type(error).__name__, error)


class _Finder(MetaPathFinder):
    """Finds the op's module as Python does, and replaces the op once that has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in MODULES else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_replace(module: ModuleType) -> None:
                run(module)
                _replace(module)

            setattr(spec.loader, "exec_module", run_and_replace)  # noqa: B010 - mypy takes no assignment to a method
        return spec


def _replace(module: ModuleType) -> None:
    """Put the tuned op in the place of the module's own, there and wherever vLLM has imported it to."""
    try:
        upstream = getattr(module, OP, None)
        op = tuner.load_op(OP)
        if upstream is op:
            return
        reason = _mismatch(upstream, op)
        if not reason:
            winner_tables(load_kernel(OP))  # kept: what cannot be read is told now and not at the model's first step
            _put(op, upstream)
            _log.info("%s is replaced by the tuned op.", module.__name__)
    except Exception as error:  # noqa: BLE001 - a plugin must not keep the server from starting
        reason = f"{type(error).__name__}: {error}"
    if reason:
        _log.warning("%s is not replaced: %s.", module.__name__, reason.rstrip("."))


def _put(op: Callable[..., Any], upstream: Any) -> None:
    """Wherever a loaded module of vLLM has one, put the other; modules and names may come meanwhile."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "vllm" and isinstance(module, ModuleType):
            vars(module).update({each: op for each, value in list(vars(module).items()) if value is upstream})


def _mismatch(upstream: Any, op: Callable[..., Any]) -> str:
    """Why the tuned op cannot take the place of a function; empty where it can."""
    import torch

    if torch.version.hip is not None:
        return "this is an AMD GPU, on which the FP8 types may differ"
    if not callable(upstream):
        return f"the module has no function {OP}"
    theirs, ours = inspect.signature(upstream).parameters.values(), inspect.signature(op).parameters.values()
    expected = [_plain(each) for each in ours if each.kind is not each.KEYWORD_ONLY]  # the others have defaults
    found = [_plain(each) for each in theirs]
    return "" if found == expected else f"its parameters are {', '.join(found)}; expected {', '.join(expected)}"


def _plain(parameter: inspect.Parameter) -> str:
    """Name and default."""
    return str(parameter.replace(annotation=parameter.empty))
