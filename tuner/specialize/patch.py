"""The change to a kernel's own file that marks other arguments."""

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tuner.catalog import Implementation
from tuner.compile.source import arguments, emit
from tuner.errors import UserError
from tuner.records import Config, SpecializationSet, Variant

_KEYWORDS = ("do_not_specialize", "do_not_specialize_on_alignment")


@dataclass(frozen=True)
class Patch:
    """The file and the first line, from 1, of the decorator; its old and new text; both as a unified diff.

    Old and new are the same, and the diff is empty, where the file marks these arguments already.
    """

    path: Path
    line: int
    old: str
    new: str
    diff: str


def decorator_patch(path: Path, function: str, marks: SpecializationSet) -> Patch:
    """What to write in the file for a set; UserError when its source cannot be rewritten."""
    source = path.read_text(encoding="utf-8")
    emitted = _emitted(path, function, marks)
    index = _jit_index(path, function)
    old, new = (_function(text, function).decorator_list[index] for text in (source, emitted))
    before, after = _lines(source), _lines(emitted)
    start, end = old.lineno - 1, old.end_lineno
    # Comments inside the old decorator stand above the new one.
    moved = _comments_above(after, new.lineno - 1) - _comments_above(before, start)
    new_lines = after[new.lineno - 1 - moved : new.end_lineno]
    old_text, new_text = "".join(before[start:end]).strip(), "".join(new_lines).strip()
    if declared_marks(path, function) == marks:
        return Patch(path, old.lineno, old_text, old_text, "")
    diff = _diff(path, before, [*before[:start], *new_lines, *before[end:]])
    return Patch(path, old.lineno, old_text, new_text, diff)


def declared_marks(path: Path, function: str) -> SpecializationSet:
    """The set in the function's decorator; UserError for no such function, or for names that are not written out."""
    source = path.read_text(encoding="utf-8")
    runtime = arguments(source, function, source_name=path.name).runtime
    definition = _function(source, function)
    decorator = definition.decorator_list[_jit_index(path, function)]
    lists = {each.arg: each.value for each in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    found: list[list[str]] = []
    for keyword in _KEYWORDS:
        listed = lists.get(keyword)
        elements = listed.elts if isinstance(listed, ast.List | ast.Tuple) else []
        values = [element.value for element in elements if isinstance(element, ast.Constant)]
        is_literal = isinstance(listed, ast.List | ast.Tuple) and len(values) == len(elements)
        if not (is_literal or listed is None or (isinstance(listed, ast.Constant) and listed.value is None)):
            raise UserError(
                f"{path.name}:{decorator.lineno}: {keyword} is {ast.unparse(listed)}; expected a list of names.",
                hint="Write the names out in the decorator.",
            )
        # Triton also takes an argument's place for its name.
        names = [definition.args.args[value].arg if isinstance(value, int) else str(value) for value in values]
        found.append([name for name in names if name in runtime])
    return SpecializationSet.of(*found)


def _emitted(path: Path, function: str, marks: SpecializationSet) -> str:
    """The file with other marks; no parameter is frozen, so that only the function's decorator changes."""
    bare = Implementation(function, path.name, function)
    variant = Variant(function, Config(function), marks)
    return emit(path.read_text(encoding="utf-8"), bare, variant, source_name=path.name)


def _jit_index(path: Path, function: str) -> int:
    """Which of the function's decorators is triton.jit: the one that marks change."""
    runtime = arguments(path.read_text(encoding="utf-8"), function, source_name=path.name).runtime
    texts = [_emitted(path, function, SpecializationSet.of(names)) for names in ((), runtime)]
    plain, marked = ([ast.dump(each) for each in _function(text, function).decorator_list] for text in texts)
    return next((index for index, each in enumerate(plain) if each != marked[index]), len(plain) - 1)


def _function(source: str, name: str) -> ast.FunctionDef:
    body = ast.parse(source.removeprefix("\ufeff")).body
    return next(each for each in body if isinstance(each, ast.FunctionDef) and each.name == name)


def _lines(text: str) -> list[str]:
    return StringIO(text).readlines()  # at newlines only, as ast counts


def _comments_above(lines: Sequence[str], index: int) -> int:
    """How many lines right above one hold nothing but a comment."""
    return next(count for count in range(index + 1) if count == index or not lines[index - 1 - count].startswith("#"))


def _diff(path: Path, before: Sequence[str], after: Sequence[str]) -> str:
    shown = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return "".join(difflib.unified_diff(before, after, shown, shown, n=1))
