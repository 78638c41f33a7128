"""YAML text to plain data and line numbers. No tag constructs anything, so a file can run no code."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import yaml

from tuner.errors import SpaceError
from tuner.space.source import Location, Problem, Source

MAX_FILE_SIZE_BYTES = 1 << 20
# Aliases can make a short file stand for billions of values, or for itself.
MAX_VALUES = 20_000
MAX_DEPTH = 16
_TOO_LARGE = f"more than {MAX_VALUES} values or {MAX_DEPTH} levels of nesting"

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes only. Scalars follow YAML 1.2: `yes` and `1:30` are text, `010` is no number."""

    # PyYAML keeps its own resolvers in this class attribute.
    yaml_implicit_resolvers = {}  # noqa: RUF012
    count = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.count += 1
        self.depth += 1
        if self.count > MAX_VALUES or self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, _TOO_LARGE, self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _resolve(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + kind, re.compile(f"^(?:{pattern})$"), list(first))


_resolve("null", "~|null|Null|NULL", "~nN")
_Loader.add_implicit_resolver(_TAG + "null", re.compile("^$"), [""])
_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("int", "[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789")
_resolve("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*|(?=[eE])))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789")

_SCALARS: dict[str, Callable[[str], object]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: int(text, 0),
    "float": lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}


def read_tree(path: Path) -> tuple[object, Source]:
    """The file's plain data and the line of each value; SpaceError for a file that is missing or not YAML."""
    text = _read_text(path)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _syntax_error(path, text, error) from None
    if root is None:
        raise SpaceError(
            f"{path}:1: The file is empty; expected a search space.",
            hint="Start with `kernel:`, `implementations:` and `shapes:`.",
        )
    reader = _Reader(path)
    data = reader.value(root, ())
    return data, Source(path, reader.lines)


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise SpaceError(f"{path} is a directory; expected a search space file.", hint="Name a .yaml file in it.")
    if not path.is_file():
        siblings = [each.name for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        nearest = get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        hint = f"Did you mean {path.parent / nearest[0]}?" if nearest else "Check the path."
        raise SpaceError(f"{path} does not exist or is no regular file; expected a search space file.", hint=hint)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_SIZE_BYTES + 1)
    except OSError as error:
        raise SpaceError(f"{path} cannot be read: {error.strerror}.", hint="Check its permissions.") from None
    if len(content) > MAX_FILE_SIZE_BYTES:
        raise SpaceError(
            f"{path} is larger than 1 MiB; expected a search space, which takes a few kilobytes.",
            hint="Check that this is the right file.",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte {content[error.start]:#04x}"
        raise SpaceError(f"{path}:{line}: Found {found}; expected UTF-8 text.", hint="Save it as UTF-8.") from None


def _syntax_error(path: Path, text: str, error: yaml.YAMLError) -> SpaceError:
    line, reason = 1, "unreadable text"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        start = error.context_mark
        since = f" that starts on line {start.line + 1}" if start and start.line + 1 != line else ""
        reason = ", ".join(filter(None, [error.context and error.context + since, error.problem]))
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        reason = f"character {error.character!r} is not allowed"
    hint = "Check the indentation (spaces, not tabs), the brackets and the quotes on this line and the one before."
    return SpaceError(f"{path}:{line}: Not valid YAML: {reason}.", hint=hint)


class _Reader:
    """Walks the composed nodes once; `lines` fills as it goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Location, int] = {}
        self.count = 0

    def value(self, node: yaml.Node, location: Location, line: int | None = None) -> object:
        """The node's plain data. `line` is that of its key; None for what has no key."""
        self.lines[location] = line if line is not None else _line(node)
        self.count += 1
        if self.count > MAX_VALUES or len(location) > MAX_DEPTH:
            raise self.error(
                location,
                f"The file stands for {_TOO_LARGE}.",
                "Remove the YAML aliases (`*name`) that repeat values.",
            )
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, location)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(each, (*location, index)) for index, each in enumerate(node.value)]
        kind = node.tag.removeprefix(_TAG)
        if not isinstance(node, yaml.ScalarNode) or kind not in _SCALARS:
            raise self.error(
                location,
                f"Found the YAML tag {node.tag!r}; expected plain numbers, text, lists and mappings.",
                "Remove the tag.",
            )
        try:
            return _SCALARS[kind](node.value)
        except ValueError:
            raise self.error(location, f"Found {node.value[:60]!r}; expected {kind}.", "Correct the value.") from None

    def mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, object]:
        """The mapping; SpaceError for a key that is no text or stands there twice."""
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                self.lines[location] = line
                found = repr(key) if isinstance(key, str) else "a list or mapping"
                raise self.error(location, f"Found {found} as a key; expected a name.", "Quote it or correct it.")
            if key in result:
                first = self.lines[(*location, key)]
                self.lines[location] = line
                raise self.error(
                    location, f"The key {key!r} is repeated; it stands on line {first} already.", "Keep one of the two."
                )
            result[key] = self.value(value_node, (*location, key), line)
        return result

    def error(self, location: Location, message: str, hint: str) -> SpaceError:
        return Source(self.path, self.lines).error([Problem(location, message, hint)])


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
