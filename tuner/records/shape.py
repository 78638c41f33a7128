"""The sizes and options of one call of a kernel."""

from tuner.records.frozen import FrozenMapping

DimensionValue = int | str


class Shape(FrozenMapping[DimensionValue]):
    """One value for every dimension of a kernel, for example `num_tokens=512, num_heads=64, n_groups=8`."""

    __slots__ = ()

    def size(self, name: str) -> int:
        """The integer value of a dimension; TypeError for an option that is a word."""
        value = self[name]
        if not isinstance(value, int):
            raise TypeError(f"dimension {name!r} is {value!r}, not an integer")
        return value
