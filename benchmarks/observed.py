"""The `tuner` command, with a line in a file for each event that it announces.

    python benchmarks/observed.py LOG run KERNEL ...

Nothing here imports Triton at the top: workers import this file again before they set what Triton reads at import.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.cli.progress import Label
    from tuner.session.events import Event, Listener


def main() -> None:
    from tuner.cli import main as command
    from tuner.cli import progress

    watch, file = progress.watch, os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @contextmanager
    def watch_and_write(console: "Console", label: "Label") -> "Iterator[Listener]":
        with watch(console, label) as show:

            def listener(event: "Event") -> None:
                os.write(file, (json.dumps(line_of(event)) + "\n").encode())
                show(event)

            yield listener

    progress.watch = watch_and_write
    sys.argv = ["tuner", *sys.argv[2:]]
    command.main()


def line_of(event: "Event") -> dict[str, Any]:
    """The event's name, when it came (on the clock that all processes share), and which variant and shape it is of."""
    about = getattr(event, "evaluation", None) or getattr(event, "winner", None)
    named = {"variant": about.variant.digest, "shape": about.shape.canonical} if about else {}
    return {"event": type(event).__name__, "at_s": time.monotonic(), **named}


if __name__ == "__main__":
    main()
