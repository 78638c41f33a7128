"""A bare `@triton.jit` function as a kernel: its arguments as expressions over the sizes that change.

What a pointer points at has no size here, so such a kernel can be bound and compiled, but neither run nor timed.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from simpleeval import EvalWithCompoundTypes, InvalidExpression

from tuner import settings
from tuner.catalog.cache import keep
from tuner.catalog.kernels import Kernel, load_folder
from tuner.catalog.spec import Dimension, Implementation, KernelSpec, Launch, Tensors
from tuner.errors import UnknownNameError, UserError
from tuner.records import Config, FrozenMapping, Shape, SpecializationSet

if TYPE_CHECKING:
    from torch import Tensor

# The dimension that changes from step to step, where an expression names it.
_USUAL = "num_tokens"
_IMPLEMENTATION = "function"
_POINTER = re.compile(r"\*(?P<type>\w+)(?P<unaligned>:unaligned)?")
# Triton's names of what a pointer may point at, and torch's.
_TYPES = {
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64",
    "fp8e4nv": "float8_e4m3fn", "fp8e5": "float8_e5m2",
    "i1": "bool", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
}  # fmt: skip
_FUNCTIONS = {"min": min, "max": max, "abs": abs}
_HINT = "Write a number, None, 'text' or an expression over sizes such as (num_tokens+3)//4*4; a pointer as *bf16."


def function_kernel(source: Path, function: str, arguments: Mapping[str, str], options: Mapping[str, int]) -> Kernel:
    """A kernel folder in the cache for one function of a file, with a copy of the file; loaded.

    `arguments` maps each name to an expression (see `function_spec`). The same contents give the same folder.
    UserError for an expression that cannot be read, or when the file or the cache cannot be.
    """
    spec = f"function={function!r}, arguments={dict(arguments)!r}, options={dict(options)!r}"
    _dimensions(arguments)
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{source}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not UTF-8 text.") from error
    name = f"{function}_{hashlib.sha256(f'{text}{spec}'.encode()).hexdigest()[:8]}"
    folder = settings.cache_folder() / "functions" / name
    keep(folder / "kernel.py", text)
    keep(
        folder / "spec.py",
        f"from tuner.catalog.function import function_spec\n\nSPEC = function_spec({name!r}, {spec})\n",
    )
    return load_folder(folder)


def function_spec(name: str, function: str, arguments: Mapping[str, str], options: Mapping[str, int]) -> KernelSpec:
    """The spec of a function in `kernel.py`.

    An argument is `*bf16` (a pointer to that type, aligned to 16 bytes), `*bf16:unaligned`, or a Python expression over
    numbers and sizes. Every name in an expression is a dimension; `num_tokens`, else the first one, is the dynamic one.
    """
    names = _dimensions(arguments)
    dynamic = _USUAL if _USUAL in names else names[0]
    pointers = {each: text for each, text in arguments.items() if text.startswith("*")}
    values = {each: text for each, text in arguments.items() if each not in pointers}
    return KernelSpec(
        name=name,
        summary=f"The function {function}.",
        dimensions=tuple(Dimension(each, dynamic=each == dynamic) for each in names),
        implementations=(Implementation(_IMPLEMENTATION, "kernel.py", function),),
        baseline=Config(_IMPLEMENTATION, FrozenMapping(), FrozenMapping(dict(options))),
        baseline_specialization=SpecializationSet(),
        make_inputs=partial(_pointers, pointers),
        make_outputs=_no_outputs,
        launch=partial(_launch, values),
        bytes_moved=_unknown,
        flops=_unknown,
        check_shapes=(),
    )


def _pointers(pointers: Mapping[str, str], shape: Shape, device: str, seed: int) -> Tensors:
    return {name: _pointer(name, text, device) for name, text in pointers.items()}


def _pointer(name: str, text: str, device: str) -> "Tensor":
    import torch

    found = _POINTER.fullmatch(text)
    if not found:
        raise UserError(f"{name}={text!r} is no pointer; expected *TYPE or *TYPE:unaligned.")
    if found["type"] not in _TYPES:
        raise UnknownNameError(f"type of the pointer {name}", found["type"], _TYPES)
    tensor = torch.empty(2, dtype=getattr(torch, _TYPES[found["type"]]), device=device)
    return tensor[1:] if found["unaligned"] else tensor[:1]


def _no_outputs(shape: Shape, device: str) -> Tensors:
    return {}


def _launch(values: Mapping[str, str], inputs: Tensors, outputs: Tensors, shape: Shape, config: Config) -> Launch:
    return Launch((1,), {**inputs, **{name: _evaluate(name, text, shape) for name, text in values.items()}})


def _evaluate(name: str, text: str, shape: Shape) -> Any:
    """The value of an expression at a shape; UserError where it has none that a launch can take."""
    try:
        value = EvalWithCompoundTypes(functions=_FUNCTIONS, names=dict(shape)).eval(text.strip())
    except (InvalidExpression, ArithmeticError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}={text!r} has no value at {shape.label}: {error}.", hint=_HINT) from error
    if not isinstance(value, int | float | str | tuple | None):
        raise UserError(f"{name}={text!r} is {value!r}; expected a number, None, text or a tuple.", hint=_HINT)
    return value


def _dimensions(arguments: Mapping[str, str]) -> Sequence[str]:
    """The names in the expressions, in order; UserError where there is none or an expression does not parse."""
    found = list(dict.fromkeys(name for each, text in arguments.items() for name in _names(each, text)))
    if not found:
        hint = f"Give what changes from step to step as an expression, as in --arg n={_USUAL}."
        raise UserError("No argument depends on a size, so every step is the same.", hint=hint)
    return found


def _names(argument: str, text: str) -> Iterable[str]:
    if text.startswith("*"):
        return ()
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{argument}={text!r} does not parse.", hint=_HINT) from error
    named = [node for node in nodes if isinstance(node, ast.Name)]
    ordered = sorted(named, key=lambda node: (node.lineno, node.col_offset))
    return [node.id for node in ordered if node.id not in _FUNCTIONS]


def _unknown(shape: Shape) -> NoReturn:
    raise UserError(
        "A bare function says nothing of its tensors' sizes, so its traffic is unknown.",
        hint="Describe it by a KernelSpec: see `tuner/catalog/spec.py`.",
    )
