"""The variant generator: a kernel's own file in, a module that stands alone out.

Text in, text out: nothing is imported or run, so a kernel can be read without Triton, torch or a GPU.
What the rewriting would silently get wrong is a `UserError` instead.
"""

import builtins
import hashlib
import json
import symtable
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import libcst as cst
from libcst import matchers
from libcst.helpers import get_full_name_for_node

from tuner.catalog.spec import Implementation
from tuner.errors import UnknownNameError, UserError
from tuner.records import LAUNCH_PDL, FrozenMapping, SpecializationSet, Variant

_OPTIONS = "COMPILE_OPTIONS"
_SETS = ("do_not_specialize", "do_not_specialize_on_alignment")
_NO_SPACE = cst.SimpleWhitespace("")
_Space = cst.BaseParenthesizableWhitespace


@dataclass(frozen=True)
class FunctionSignature:
    """Argument names in order: those that a launch passes at run time, and those annotated `tl.constexpr`.

    `optional` are those of either that have a default value.
    """

    runtime: tuple[str, ...]
    constexpr: tuple[str, ...]
    optional: tuple[str, ...] = ()


def emit(source: str, implementation: Implementation, variant: Variant, *, source_name: str) -> str:
    """The module of one variant: decorator rewritten, tuned parameters frozen, the rest as it was written.

    `source` is the text of the kernel's file; `source_name` names it in the header and in errors, the same on every
    machine (`rope/kernel.py`). The same arguments give the same bytes. Variants that differ only in the specialization
    set differ only in the header and the decorator, line for line. An argument that has the name of a compile option is
    frozen too, to the option's value.

    Raises UserError when the source does not parse or cannot be rewritten without changing its meaning, or when the
    variant does not fit it; UnknownNameError, one of these, when a name does not exist.
    """
    parsed = _parse(source, source_name)
    target = _find(parsed, implementation.function)
    signature = _signature(parsed, target)
    _check_variant(signature, implementation, variant)
    _check_launch(signature, implementation, variant)
    values = FrozenMapping({name: variant.config.parameters[name] for name in implementation.parameters})
    options = FrozenMapping(dict(sorted(variant.config.options.items())))
    known = {LAUNCH_PDL: 0, **options}
    constants = {**values, **{name: known[name] for name in signature.constexpr if name in known}}
    _check_names(parsed, target, [*constants])
    _check_calls(parsed, target, [*constants])
    chosen = _in_order(target, signature, variant.specialization)
    decorators = [_rewritten(parsed, each, chosen) if _is_jit(parsed, each) else each for each in target.decorators]
    frozen, comments = _without_parameters(target, [*constants])
    above = _constants(parsed, target, constants, comments) + f"{_OPTIONS} = {dict(options)}\n".replace("'", '"')
    body: list[cst.BaseStatement] = []
    for statement in parsed.module.body:
        if statement is target:
            body += cast(list[cst.BaseStatement], cst.parse_module(f"pass\n\n\n{above}").body[1:])
            statement = frozen.with_changes(decorators=decorators)
        body.append(cast(cst.BaseStatement, statement))
    facts = {
        "kernel": variant.kernel,
        "implementation": f"{implementation.name}, function {implementation.function}",
        "source": f"{source_name}, sha256 {hashlib.sha256(source.encode()).hexdigest()[:16]}",
        "variant": variant.digest,
        "parameters": values.label.replace(",", ", ") or "none",
        "compile options": options.label.replace(",", ", ") or "none",
        **{keyword: ", ".join(names) or "none" for keyword, names in chosen.items()},
    }
    return _header(facts) + parsed.module.with_changes(body=body, has_trailing_newline=True).code


def arguments(source: str, function: str, *, source_name: str) -> FunctionSignature:
    """The arguments of the `@triton.jit` function of that name, read without importing the file.

    Raises UserError when the source does not parse or the function cannot be rewritten, UnknownNameError when there is
    no such function.
    """
    parsed = _parse(source, source_name)
    return _signature(parsed, _find(parsed, function))


def foreign_imports(source: str, *, source_name: str) -> tuple[str, ...]:
    """What a kernel's file imports beside torch, Triton and Python's own packages; errors are those of `arguments`."""
    return tuple(sorted(_parse(source, source_name).packages - {"torch", "triton"} - sys.stdlib_module_names))


@dataclass(frozen=True)
class _Parsed:
    name: str
    module: cst.Module
    symbols: symtable.SymbolTable
    imports: Mapping[str, str]  # local name -> what it stands for, dotted
    packages: Set[str]
    calls: Sequence[cst.Call]

    def binds(self, name: str) -> bool:
        """Whether the module's top level assigns, defines or imports that name."""
        found = self.symbols.lookup(name) if name in self.symbols.get_identifiers() else None
        return found is not None and (found.is_assigned() or found.is_imported())


@lru_cache(maxsize=16)
def _parse(source: str, name: str) -> _Parsed:
    text = source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        symbols = symtable.symtable(text, name, "exec")
        module = cst.parse_module(text)
    except (SyntaxError, ValueError, cst.ParserSyntaxError) as error:  # ValueError: a null byte
        line = error.raw_line if isinstance(error, cst.ParserSyntaxError) else getattr(error, "lineno", None) or 1
        raise UserError(f"{name}:{line}: the source does not parse: {getattr(error, 'msg', error)}.") from error
    imports, packages = dict[str, str](), set[str]()
    for node in matchers.findall(module, matchers.Import() | matchers.ImportFrom()):
        if isinstance(node, cst.ImportFrom) and node.relative:
            hint = "Move what it imports into the kernel's file."
            raise UserError(f"{name} has a relative import, but an emitted module stands alone.", hint=hint)
        prefix = f"{get_full_name_for_node(node.module)}." if isinstance(node, cst.ImportFrom) and node.module else ""
        names = cast(cst.Import | cst.ImportFrom, node).names
        full_names = [prefix] if prefix else [each.evaluated_name for each in cast(Sequence[cst.ImportAlias], names)]
        packages |= {each.split(".")[0] for each in full_names}
        for each in () if isinstance(names, cst.ImportStar) else names:
            full, local = each.evaluated_name, each.evaluated_alias
            bound = full if local or prefix else full.split(".")[0]
            imports[local or bound] = prefix + bound
    calls = cast(list[cst.Call], matchers.findall(module, matchers.Call()))
    return _Parsed(name, module, symbols, imports, packages, calls)


def _find(parsed: _Parsed, name: str) -> cst.FunctionDef:
    functions = [each for each in parsed.module.body if isinstance(each, cst.FunctionDef)]
    found = [each for each in functions if each.name.value == name]
    where = f"{name!r} in {parsed.name}"
    if not found:
        known = [each.name.value for each in functions if any(_is_jit(parsed, one) for one in each.decorators)]
        raise UnknownNameError(f"function of {parsed.name}", name, known, hint="It must stand at the file's top level.")
    if len(found) > 1:
        raise UserError(f"{where} is defined {len(found)} times; expected once.", hint="Rename the others.")
    for each in found[0].decorators:
        last = _origin(parsed, each).split(".")[-1]
        if last in ("autotune", "heuristics"):
            hint = "Remove it, and put its values into the search space."
            raise UserError(f"{where} is decorated with triton.{last}, but tuner owns that choice.", hint=hint)
    if sum(_is_jit(parsed, each) for each in found[0].decorators) != 1:
        raise UserError(f"{where} is not decorated with triton.jit.", hint="Decorate it with @triton.jit, once.")
    return found[0]


def _origin(parsed: _Parsed, decorator: cst.Decorator) -> str:
    """What a decorator stands for, through the module's imports: `triton.jit`."""
    root, _, rest = (get_full_name_for_node(decorator.decorator) or "").partition(".")
    return f"{parsed.imports.get(root, root)}.{rest}".rstrip(".")


def _is_jit(parsed: _Parsed, decorator: cst.Decorator) -> bool:
    return f".{_origin(parsed, decorator)}".endswith((".triton.jit", ".triton.runtime.jit.jit"))


def _signature(parsed: _Parsed, function: cst.FunctionDef) -> FunctionSignature:
    given = function.params
    if not given.deep_equals(cst.Parameters(params=given.params)):
        found = f"{function.name.value!r} in {parsed.name} has `*` or `/` in its signature"
        raise UserError(f"{found}, which not every supported Triton compiles.", hint="Write every argument plainly.")
    names = {each.name.value: "constexpr" in _annotation(parsed, each) for each in given.params}  # as Triton decides
    runtime = tuple(name for name, constexpr in names.items() if not constexpr)
    constexpr = tuple(name for name in names if name not in runtime)
    return FunctionSignature(
        runtime, constexpr, tuple(each.name.value for each in given.params if each.default is not None)
    )


def _annotation(parsed: _Parsed, parameter: cst.Param) -> str:
    node = parameter.annotation.annotation if parameter.annotation else cst.Name("_")
    return str(node.evaluated_value) if isinstance(node, cst.SimpleString) else parsed.module.code_for_node(node)


def _check_variant(signature: FunctionSignature, implementation: Implementation, variant: Variant) -> None:
    config, owner = variant.config, f"implementation {implementation.name!r} of {variant.kernel}"
    if config.implementation != implementation.name:
        raise UserError(
            f"The config is for implementation {config.implementation!r}; expected {implementation.name!r}."
        )
    for name in implementation.parameters:
        if name in signature.runtime:
            found = f"Parameter {name!r} of {owner} is not annotated tl.constexpr"
            raise UserError(f"{found} in {implementation.function!r}.", hint=f"Write `{name}: tl.constexpr`.")
        if name not in signature.constexpr:
            raise UnknownNameError(f"parameter of {owner}", name, signature.constexpr)
        if name not in config.parameters:
            raise UserError(f"The config has no value for parameter {name!r} of {owner}.", hint=f"Add {name}=<value>.")
    for name in config.parameters:
        if name not in implementation.parameters:
            raise UnknownNameError(f"parameter of {owner}", name, implementation.parameters)
    for name, value in {**config.parameters, **config.options}.items():
        if not isinstance(value, int):
            raise UserError(f"{name!r} of {owner} is {value!r}; expected an integer.")


def _check_launch(signature: FunctionSignature, implementation: Implementation, variant: Variant) -> None:
    """UserError where a kernel would start before its inputs are written, and does not know of it."""
    if variant.config.options.get(LAUNCH_PDL) and LAUNCH_PDL not in signature.constexpr:
        function = implementation.function
        raise UserError(
            f"{LAUNCH_PDL} starts {function!r} before the kernel in front of it has ended, and it does not wait.",
            hint=f"Give it an argument `{LAUNCH_PDL}: tl.constexpr = 0`; where that is set, call gdc_wait() before the "
            "first load.",
        )


def _check_names(parsed: _Parsed, target: cst.FunctionDef, parameters: Sequence[str]) -> None:
    """UserError where a new constant would hide another name, or the function assigns to it."""
    scope = next(each for each in parsed.symbols.get_children() if each.get_name() == target.name.value)
    for name in (*parameters, _OPTIONS):
        if parsed.binds(name) or hasattr(builtins, name):
            found = f"{name!r} is already a module-level name of {parsed.name} or a builtin"
            raise UserError(f"{found}, but the emitted module defines it.", hint="Rename one of the two.")
        if name in scope.get_identifiers() and scope.lookup(name).is_assigned():
            found = f"{target.name.value!r} in {parsed.name} assigns to {name!r}"
            raise UserError(f"{found}, which becomes a constant of the module.", hint="Assign to another name.")


def _check_calls(parsed: _Parsed, target: cst.FunctionDef, parameters: Sequence[str]) -> None:
    """UserError where the file itself passes a tuned parameter: in `f(...)`, `f[grid](...)` or `f.warmup(...)`."""
    order = [each.name.value for each in target.params.params]
    for call in parsed.calls:
        given = call.args
        if (get_full_name_for_node(call) or "").split(".")[0] == target.name.value:
            passed = [each.keyword.value for each in given if each.keyword]
            passed += order[: sum(each.keyword is None and not each.star for each in given)]
            for name in (each for each in parameters if each in passed):
                found = f"{parsed.name} calls {target.name.value!r} with {name!r}"
                raise UserError(f"{found}, which becomes a constant.", hint="Move that call to another file.")


def _in_order(target: cst.FunctionDef, signature: FunctionSignature, chosen: SpecializationSet) -> dict[str, list[str]]:
    """The keyword arguments of the decorator, names in the order of the signature."""
    sets = dict(zip(_SETS, (chosen.do_not_specialize, chosen.do_not_specialize_on_alignment), strict=True))
    for name in (each for names in sets.values() for each in names):
        if name not in signature.runtime:
            raise UnknownNameError(f"run-time argument of {target.name.value!r}", name, signature.runtime)
    return {keyword: [each for each in signature.runtime if each in names] for keyword, names in sets.items()}


def _rewritten(parsed: _Parsed, decorator: cst.Decorator, chosen: Mapping[str, Sequence[str]]) -> cst.Decorator:
    """The jit decorator on one line with the chosen sets; other keyword arguments stay, comments move above it."""
    before = decorator.decorator
    call = before if isinstance(before, cst.Call) else cst.Call(before)
    if not all(each.keyword for each in call.args):
        found = f"The triton.jit decorator in {parsed.name} has an argument without a keyword"
        raise UserError(f"{found}, in which a specialization set could hide.", hint="Write each as name=value.")
    kept = [each for each in call.args if each.keyword and each.keyword.value not in _SETS]
    plain = [each.with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=_NO_SPACE) for each in kept]
    bare = [each.with_changes(value=cst.Name("_")) if each in kept else each for each in call.args]
    comments = cast(list[cst.Comment], matchers.findall(call.with_changes(args=bare), matchers.Comment()))
    above = [*decorator.leading_lines, *(cst.EmptyLine(comment=each) for each in comments)]
    sets = ", ".join(f"{name}={json.dumps(names)}" for name, names in chosen.items() if names)
    args = [*cast(cst.Call, cst.parse_expression(f"_({sets})")).args, *plain]
    return decorator.with_changes(decorator=cst.Call(call.func, args) if args else call.func, leading_lines=above)


def _without_parameters(function: cst.FunctionDef, removed: Sequence[str]) -> tuple[cst.FunctionDef, dict[str, str]]:
    """The function without those arguments, and by argument the comment that stood behind it on a line of its own."""
    given, no_comma = function.params.params, cst.MaybeSentinel.DEFAULT
    kept: list[cst.Param] = []
    gaps = [function.whitespace_before_params]  # behind the bracket, then behind each kept argument
    comments: dict[str, str] = {}
    for each in given:
        gap = each.comma.whitespace_after if isinstance(each.comma, cst.Comma) else each.whitespace_after_param
        if each.name.value in removed:
            gaps[-1], comments[each.name.value] = _joined(gaps[-1], gap, leading=not kept)
        else:
            kept.append(each)
            gaps.append(gap)
    for index, (each, gap) in enumerate(zip(kept, gaps[1:], strict=True)):
        if isinstance(each.comma, cst.Comma) and (index + 1 < len(kept) or given[-1].comma != no_comma):
            kept[index] = each.with_deep_changes(each.comma, whitespace_after=gap)
        else:
            kept[index] = each.with_changes(comma=no_comma, whitespace_after_param=gap)
    params = function.params.with_changes(params=kept)
    return function.with_changes(params=params, whitespace_before_params=gaps[0]), comments


def _joined(first: _Space, second: _Space, *, leading: bool) -> tuple[_Space, str]:
    """The space before and behind a removed argument as one, and the comment that would be lost by it."""
    if not isinstance(second, cst.ParenthesizedWhitespace):
        return (first if leading or isinstance(first, cst.ParenthesizedWhitespace) else second), ""
    if not isinstance(first, cst.ParenthesizedWhitespace):
        return second, ""
    comment = second.first_line.comment
    lines = [*first.empty_lines, *second.empty_lines]
    return second.with_changes(first_line=first.first_line, empty_lines=lines), comment.value if comment else ""


def _constants(parsed: _Parsed, target: cst.FunctionDef, values: Mapping[str, int], comments: Mapping[str, str]) -> str:
    """The frozen parameters as text, a line each."""
    annotations = {each.name.value: _annotation(parsed, each) for each in target.params.params}
    words = {name: _constexpr(parsed, annotations[name]) for name in values}
    needed = not all(parsed.binds(each.split(".")[0]) for each in words.values())
    lines = [f"{words[name]}({value!r})  {comments[name]}".rstrip() for name, value in values.items()]
    text = "".join(f"{name} = {line}\n" for name, line in zip(values, lines, strict=True))
    return f"import triton.language as tl\n{text}" if needed else text


def _constexpr(parsed: _Parsed, annotation: str) -> str:
    """`tl.constexpr` in the module's own words."""
    parts = annotation.split(".")
    if parts[-1] == "constexpr" and parsed.binds(parts[0]) and all(each.isidentifier() for each in parts):
        return annotation
    aliases = [name for name, full in parsed.imports.items() if full == "triton.language"]
    return f"{aliases[0] if aliases else 'tl'}.constexpr"


def _header(facts: Mapping[str, str]) -> str:
    lines = "".join(f"# {name + ':':<31} {value}\n" for name, value in facts.items())
    call = f"# Launch with every argument except the frozen ones, and **{_OPTIONS}."
    return f"# Generated by tuner; do not edit.\n{lines}{call}\n\n"
