"""A function named as `path.py:function`, with sample arguments, as something to look at."""

import ast
from collections.abc import Mapping
from pathlib import Path

from tuner.catalog import Kernel
from tuner.catalog.function import function_kernel
from tuner.compile.source import arguments
from tuner.errors import UnknownNameError, UserError


def is_bare_function(text: str) -> bool:
    """Whether a text names a function of a file, not a kernel."""
    path, colon, name = text.rpartition(":")
    return bool(colon) and path.endswith(".py") and name.isidentifier()


def bare_function(text: str, given: Mapping[str, str], options: Mapping[str, int]) -> tuple[Kernel, Path]:
    """The function as a kernel that can be bound and compiled, and its file.

    `given` maps each argument without a default to an expression (see `tuner.catalog.function.function_spec`).
    UserError when the file cannot be read, has no such `@triton.jit` function, or arguments are missing.
    """
    file, _, name = text.rpartition(":")
    path = Path(file).resolve()
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{file} cannot be read: {reason}.", hint="Name a function as path.py:function.") from error
    signature = arguments(source, name, source_name=file)
    known = (*signature.runtime, *signature.constexpr)
    for each in given:
        if each not in known:
            raise UnknownNameError(f"argument of {name}", each, known)
    missing = [each for each in _required(source, name) if each not in given]
    if missing:
        raise UserError(
            f"{text} needs a sample of {', '.join(missing)}.",
            hint=f"Add {' '.join(f'--arg {each}=<value>' for each in missing)}, for example --arg "
            f"{missing[0]}=num_tokens for a size, or --arg {missing[0]}='*bf16' for a pointer.",
        )
    return function_kernel(path, name, given, options), path


def _required(source: str, function: str) -> list[str]:
    """The arguments without a default, in order."""
    body = ast.parse(source.removeprefix("\ufeff")).body
    found = next(each for each in body if isinstance(each, ast.FunctionDef) and each.name == function).args
    return [each.arg for each in found.args[: len(found.args) - len(found.defaults)]]
