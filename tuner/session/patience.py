"""How long a job may take before it counts as run away."""

from statistics import median

# A cold worker imports torch and builds inputs first; until enough jobs are known, that decides.
_AT_FIRST_S = 60.0
_ENOUGH = 8
# After that: so many times what is normal, and never less than a replaced worker needs to start.
_FACTOR = 20.0
_FLOOR_S = 30.0


class Patience:
    """Learns from the jobs of a run what is normal."""

    def __init__(self) -> None:
        self._taken_s: list[float] = []

    def learn(self, taken_s: float) -> None:
        """A job that ended well took so many seconds."""
        self._taken_s.append(taken_s)

    @property
    def limit_s(self) -> float:
        """Seconds after which a job is stopped."""
        if len(self._taken_s) < _ENOUGH:
            return max(_AT_FIRST_S, _FACTOR * median(self._taken_s or [0.0]))
        return max(_FLOOR_S, _FACTOR * median(self._taken_s))
