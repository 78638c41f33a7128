"""A process that waits for a line, opens a store, starts a run, and then saves evaluations or claims keys.

It prints the number of each evaluation once it is saved, and of each key that it won. One that claims keeps running
after it printed `done`, until its input ends.
"""

import os
import subprocess
import sys
from pathlib import Path

import tuner
from tuner.store import Store


def start(url: str, first: int, last: int, work: str = "save") -> "subprocess.Popen[str]":
    """A process that has loaded everything and waits for `go`."""
    process = subprocess.Popen(
        [sys.executable, __file__, url, str(first), str(last), work],
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


def wins(process: "subprocess.Popen[str]") -> list[int]:
    """The numbers that it claimed, once it is done."""
    return [int(line) for line in iter(lambda: read_line(process), "done")]


def _main(url: str, first: int, last: int, work: str) -> None:
    from store_examples import ENVIRONMENT, SOURCE, evaluation

    print("ready", flush=True)
    sys.stdin.readline()
    with Store.open(url) as store:
        run = store.start_run("scale", SOURCE, ENVIRONMENT, 0, {})
        for number in range(first, last):
            if work == "save":
                store.save(run, SOURCE, ENVIRONMENT, evaluation(number))
            elif not store.claim(run, f"key {number}"):
                continue
            print(number, flush=True)
        if work == "claim":
            print("done", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
