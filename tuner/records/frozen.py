"""A mapping that can be hashed, compared and written in one canonical way."""

import json
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")


class FrozenMapping(Mapping[str, V], Generic[V]):
    """An immutable mapping; equality and hash ignore order, `canonical` sorts by name."""

    __slots__ = ("_hash", "_items")

    def __init__(self, items: Mapping[str, V] | None = None, /, **named: V) -> None:
        self._items: dict[str, V] = {**(items or {}), **named}
        self._hash = hash(frozenset(self._items.items()))

    def __getitem__(self, name: str) -> V:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMapping):
            return self._items == other._items
        return self._items == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._items.items())})"

    def __reduce__(self) -> tuple[type, tuple[dict[str, V]]]:
        return type(self), (self._items,)

    @property
    def canonical(self) -> str:
        """One JSON text per value, whatever the order in which it was built."""
        return json.dumps(self._items, sort_keys=True, separators=(",", ":"))

    @property
    def label(self) -> str:
        """`name=value` pairs for people, in the order in which they were given."""
        return ",".join(f"{name}={value}" for name, value in self._items.items())
