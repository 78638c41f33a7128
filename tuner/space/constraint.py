"""Constraints: short expressions over parameters, options and dimensions, parsed once and evaluated by simpleeval."""

import ast
import operator
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from tuner.errors import SpaceError, UnknownNameError
from tuner.records import DimensionValue

MAX_LENGTH = 500
MAX_DEPTH = 40
MAX_POWER_BITS = 256

_EXPECTED = (
    "expected numbers, names, + - * / // % **, comparisons, and, or, not, `a if b else c`, min(), max() and abs(); "
    "text only beside == or !="
)


def _numeric(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operator for numbers only: on text, `*` would fill memory and `%` would format."""

    def apply(left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, str):
                raise TypeError(f"{value!r} is text, not a number")
        return function(left, right)

    return apply


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    try:
        if whole and base.bit_length() * exponent > MAX_POWER_BITS:
            raise OverflowError
        return base**exponent
    except OverflowError:
        raise OverflowError(f"{base} ** {exponent} is too large") from None


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _numeric(operator.add),
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
    ast.Pow: _numeric(_power),
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs}
_ERRORS = (ArithmeticError, TypeError, ValueError, InvalidExpression)


class _Evaluators(threading.local):
    """One evaluator per thread: simpleeval keeps the names of the evaluation that is under way."""

    def __init__(self) -> None:
        self.evaluator = SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names={})

    def evaluate(self, tree: ast.expr, names: Mapping[str, DimensionValue]) -> Any:
        self.evaluator.names = names
        return self.evaluator.eval("", previously_parsed=tree)


_EVALUATORS = _Evaluators()


@dataclass(frozen=True)
class Constraint:
    """A condition that a config must meet, such as `BLOCK_HEADS <= num_heads // n_groups`.

    `path` and `line` (from 1) say where it was written, for errors; SpaceError when `text` is no safe true-or-false
    expression. `names` are the names that it mentions.
    """

    text: str
    path: str = ""
    line: int = 0
    names: frozenset[str] = field(init=False, repr=False, compare=False)
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            tree = _parse(self.text)
            names = _check(tree)
            _evaluate_fixed_parts(tree)
        except (SyntaxError, RecursionError, MemoryError, UnknownNameError, *_ERRORS) as error:
            # UnknownNameError and the ValueErrors of this module are whole sentences already.
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise self._error(f"cannot be used: {reason}", "Write a comparison such as `BLOCK_M <= 128`.") from None
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "_tree", tree)

    def holds(self, names: Mapping[str, DimensionValue]) -> bool:
        """Whether it is met; SpaceError for a division by zero, text used as a number or a name without a value."""
        try:
            return _holds(self._tree, tuple([(name, names[name]) for name in self.names if name in names]))
        except _ERRORS as error:
            missing = sorted(self.names - names.keys())
            values = ", ".join(f"{name}={names[name]!r}" for name in sorted(self.names & names.keys()))
            reason = f"no value for {', '.join(missing)}" if missing else str(error)
            raise self._error(
                f"cannot be evaluated with {values or 'no values'}: {reason}",
                "Put a constraint that excludes this case before it; constraints are tried in order.",
            ) from None

    def _error(self, message: str, hint: str) -> SpaceError:
        place = f"{self.path}:{self.line}: " if self.path else ""
        shown = self.text if len(self.text) <= 120 else self.text[:117] + "..."
        end = "" if message.endswith((".", "?")) else "."
        return SpaceError(f"{place}Constraint {shown!r} {message}{end}", hint=hint)


@lru_cache(maxsize=1 << 14)
def _holds(tree: ast.expr, values: tuple[tuple[str, DimensionValue], ...]) -> bool:
    """What an expression comes to: spaces are walked once per shape, and most shapes give it the same values."""
    return bool(_EVALUATORS.evaluate(tree, dict(values)))


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters; expected at most {MAX_LENGTH}")
    tree = ast.parse(text.strip(), mode="eval").body
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels; expected a shorter expression")
    return tree


def _check(tree: ast.expr) -> frozenset[str]:
    """The names in the expression; ValueError or UnknownNameError when a part of it is not allowed."""
    compared: set[ast.AST] = set()
    called: set[ast.AST] = set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and all(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
            compared.update([node.left, *node.comparators])
        elif isinstance(node, ast.Call):
            _check_call(node)
            called.add(node.func)
        elif isinstance(node, ast.Name) and node not in called:
            names.add(node.id)
        if not _is_allowed(node, text_allowed=node in compared):
            raise ValueError(f"{ast.unparse(node)!r} is not allowed; {_EXPECTED}")
    for name in names & _FUNCTIONS.keys():
        raise ValueError(f"{name} is a function; expected a call such as {name}(a, b)")
    if not names:
        raise ValueError("it mentions no name, so it never changes; expected a parameter, option or dimension in it")
    if not _is_truth(tree):
        raise ValueError("it gives a number; expected true or false, as from a comparison")
    return frozenset(names)


def _is_allowed(node: ast.AST, *, text_allowed: bool) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or (isinstance(node.value, str) and text_allowed)
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return type(node.op) in _OPERATORS
    if isinstance(node, ast.Compare):
        return all(type(each) in _OPERATORS for each in node.ops)
    inner = (ast.BoolOp, ast.IfExp, ast.Call, ast.Name)
    return isinstance(node, (*inner, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context))


def _check_call(node: ast.Call) -> None:
    if not isinstance(node.func, ast.Name):
        raise ValueError(f"{ast.unparse(node.func)!r} cannot be called; {_EXPECTED}")
    name = node.func.id
    if name not in _FUNCTIONS:
        raise UnknownNameError("function", name, _FUNCTIONS)
    right = len(node.args) == 1 if name == "abs" else len(node.args) >= 2
    if not right or node.keywords or any(isinstance(each, ast.Starred) for each in node.args):
        expected = "abs(a)" if name == "abs" else f"{name}(a, b)"
        raise ValueError(f"{ast.unparse(node)!r} has wrong arguments; expected {expected}")


def _is_truth(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        return all(_is_truth(value) for value in node.values)
    if isinstance(node, ast.IfExp):
        return _is_truth(node.body) and _is_truth(node.orelse)
    return isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _evaluate_fixed_parts(tree: ast.expr) -> None:
    """Evaluate each arithmetic part without names: one that always fails is found before any config is tried."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and not any(isinstance(each, ast.Name) for each in ast.walk(node)):
            _EVALUATORS.evaluate(node, {})
