"""A process that writes: waits for a line, opens a store, saves evaluations and prints each number once it is saved."""

import os
import subprocess
import sys
from pathlib import Path

import tuner
from tuner.store import Store


def start(url: str, first: int, last: int) -> "subprocess.Popen[str]":
    """A process that has loaded everything and waits for `go`."""
    process = subprocess.Popen(
        [sys.executable, __file__, url, str(first), str(last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tuner.__file__).parents[1])},
    )
    assert read_line(process) == "ready"
    return process


def go(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: "subprocess.Popen[str]") -> str:
    """What it still printed; asserts that it ended well."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def _main(url: str, first: int, last: int) -> None:
    from store_examples import ENVIRONMENT, SOURCE, evaluation

    print("ready", flush=True)
    sys.stdin.readline()
    with Store.open(url) as store:
        run = store.start_run("scale", SOURCE, ENVIRONMENT, 0, {})
        for number in range(first, last):
            store.save(run, SOURCE, ENVIRONMENT, evaluation(number))
            print(number, flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
