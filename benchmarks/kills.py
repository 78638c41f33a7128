"""Does a run survive kill -9?

    python benchmarks/kills.py [--kills 20] [--seed 0] [--json FILE] [-- KERNEL OPTIONS OF TUNER RUN]

First `tuner run` finishes undisturbed. Then the same command begins in a fresh store, is killed with all its workers
at random moments, and is given again after each kill; at last it may finish. After each kill the store must open clean
and hold all that it held before and all that the run had announced as stored; the run must not have evaluated again
what was stored when it started; and none of its processes may live on. Exit code 1 where any of that fails.

The moments are drawn before the first evaluation, in the search and in the final. A run that is over before its
moment makes way for a fresh store and half the time. Without a command, the bundled kernel is tuned for `cuda:90`.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.errors import StoreError
from tuner.store import Store

RUN = ["fused_inv_rope_fp8_quant", "--target", "cuda:90", "--trials", "40"]
RUN += ["--shapes", "num_tokens=16,512 num_heads=64 n_groups=8"]
OBSERVED = Path(__file__).with_name("observed.py")
# The longest time from the first evaluation of a start to its kill in the search.
SEARCH_S = 8.0
# What the kernel needs to end killed processes.
SURVIVORS_GONE_S = 5.0


class Start:
    """One start of the command, in a session of its own."""

    def __init__(self, command: Sequence[str], store: Path, number: int) -> None:
        self._log = store.with_name(f"events-{number}")
        self._output = store.with_name(f"output-{number}")
        self.began_s = time.monotonic()
        arguments = [sys.executable, str(OBSERVED), str(self._log), "run", *command, "--db", str(store)]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                arguments, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was announced so far under that name."""
        lines = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["event"] == name]

    def named(self, name: str) -> list[tuple[str, str]]:
        """Variant and shape of each event of that name."""
        return [(event["variant"], event["shape"]) for event in self.events(name)]

    def kill(self, event: str | None, after_s: float) -> bool:
        """Kill the process group so long after an event, or after the start; False when the run is over before."""
        due_s = self.began_s + after_s if event is None else None
        while self._process.poll() is None:
            if due_s is None and (seen := self.events(event or "")):
                due_s = seen[0]["at_s"] + after_s
            if due_s is not None and time.monotonic() >= due_s:
                os.killpg(self._process.pid, signal.SIGKILL)
                return self._process.wait() == -signal.SIGKILL
            time.sleep(0.005)
        return False

    def finish(self) -> None:
        """Wait for the end; ends the program when the run failed or announced nothing."""
        if self._process.wait() or not self.events("RunStarted"):
            sys.exit(f"the run failed:\n{self._output.read_text()[-4000:]}")

    def survivors(self) -> list[int]:
        """The processes of the session that outlive it."""
        deadline_s = time.monotonic() + SURVIVORS_GONE_S
        while (left := _living(self._process.pid)) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return left


def _living(session: int) -> list[int]:
    """The processes of a session that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(its_session) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


@dataclass
class Contents:
    """What a store holds; of `evaluations` and `winners`, the variant and the shape.

    `rows` are of the tables whose rows never change. `standing` are the shapes whose winner is newer than every
    evaluation there. `damage` is what keeps the store from being read, or what SQLite finds wrong.
    """

    rows: set[str] = field(default_factory=set)
    evaluations: set[tuple[str, str]] = field(default_factory=set)
    winners: set[tuple[str, str]] = field(default_factory=set)
    standing: set[str] = field(default_factory=set)
    damage: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> "Contents":
        """The contents of the store at a path; none where nothing was committed yet."""
        contents = cls()
        try:
            if path.exists() and contents._read_rows(path):
                contents._read_records(path)
        except (StoreError, sqlite3.Error) as error:
            contents.damage.append(str(error))
        return contents

    def _read_rows(self, path: Path) -> bool:
        """Check the file and read its rows; False when it has no tables yet."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            self.damage += [str(row) for row in database.execute("PRAGMA integrity_check") if row != ("ok",)]
            self.damage += [f"broken reference: {row}" for row in database.execute("PRAGMA foreign_key_check")]
            if not database.execute("SELECT name FROM sqlite_master").fetchall():
                return False
            for table in ("environment", "variant", "binary", "evaluation"):
                self.rows |= {f"{table} {row}" for row in database.execute(f"SELECT * FROM tuner_{table}")}
            begun = database.execute("SELECT id, source_digest, environment_id, arguments, started_at FROM tuner_run")
            self.rows |= {f"run {row}" for row in begun}
            return True

    def _read_records(self, path: Path) -> None:
        with Store.open(path, read_only=True) as store:
            runs = store.runs()
            for key in {(run.kernel, run.source_digest, run.environment) for run in runs}:
                found = store.evaluations(*key)
                self.evaluations |= {(each.variant.digest, each.shape.canonical) for each in found}
                self.standing |= {each.shape.canonical for each in store.standing_winners(*key)}
            self.winners = {(each.variant.digest, each.shape.canonical) for each in store.winners()}
        if sum(run.evaluations for run in runs) != len(self.evaluations):
            self.damage.append("the evaluations that runs added do not add up to those stored")


@dataclass
class Verdict:
    """What went wrong in a start: results lost or found again, a store that is not clean, processes that live on."""

    lost: list[str]
    repeated: list[str]
    damage: list[str]
    survivors: list[int]

    @property
    def ok(self) -> bool:
        return not (self.lost or self.repeated or self.damage or self.survivors)


def judge(before: Contents, start: Start, after: Contents) -> Verdict:
    """Hold what is stored after a start against what was stored before it and what it announced."""
    evaluated, chosen = start.named("Evaluated"), start.named("WinnerChosen")
    lost = [*(before.rows - after.rows), *map(str, set(evaluated) - after.evaluations)]
    lost += map(str, set(chosen) - after.winners)
    lost += {shape for _, shape in before.winners} - {shape for _, shape in after.winners}
    again = [each for number, each in enumerate(evaluated) if each in before.evaluations or each in evaluated[:number]]
    learned = {shape for _, shape in evaluated}
    again += [each for each in chosen if each[1] in before.standing - learned]
    return Verdict(lost, [str(each) for each in again], after.damage, start.survivors())


@dataclass(frozen=True)
class Moment:
    """So long after an event of the run, or after its start where that is None."""

    phase: str
    event: str | None
    after_s: float


def draw_moments(kills: int, seed: int, starting_s: float, final_s: float) -> list[Moment]:
    """The last seventh of the kills in the final, a fifth before the first evaluation, the others in the search.

    An undisturbed run takes `starting_s` to its first evaluation and `final_s` from its final to its end.
    """
    draw = random.Random(seed)
    early = [Moment("start", None, draw.uniform(0, starting_s)) for _ in range(kills // 5)]
    late = [Moment("final", "FinalStarted", draw.uniform(0, 0.8 * final_s)) for _ in range(kills // 7)]
    count = kills - len(early) - len(late)
    first, *search = [Moment("search", "Evaluated", draw.uniform(0, SEARCH_S)) for _ in range(count)]
    middle = early + search
    draw.shuffle(middle)
    return [first, *middle, *late]


class Trial:
    """The command, given again and again; the first store is never killed."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._starts = 0
        self._stores = 0
        self.use_fresh_store()

    def use_fresh_store(self) -> None:
        self._stores += 1
        self.store = self._folder / f"{self._stores}.db"

    def _start(self) -> tuple[Contents, Start]:
        self._starts += 1
        return Contents.of(self.store), Start(self._command, self.store, self._starts)

    def finish(self) -> tuple[Verdict, Contents, Start]:
        """Let the run finish."""
        before, start = self._start()
        start.finish()
        after = Contents.of(self.store)
        return judge(before, start, after), after, start

    def kill(self, moment: Moment) -> tuple[Verdict, Contents, float]:
        """Kill the run at the moment; the number is how many seconds it lived."""
        while True:
            before, start = self._start()
            if start.kill(moment.event, moment.after_s):
                lived_s = time.monotonic() - start.began_s
                after = Contents.of(self.store)
                return judge(before, start, after), after, lived_s
            start.finish()
            self.use_fresh_store()
            moment = replace(moment, after_s=moment.after_s / 2)


def kill_all(trial: Trial, moments: Sequence[Moment]) -> Iterator[dict[str, Any]]:
    """Kill at each moment and print what came of it."""
    print("kill  phase   after s  evaluations  winners  ok")
    for number, moment in enumerate(moments, 1):
        verdict, after, lived_s = trial.kill(moment)
        stored, winners = len(after.evaluations), len(after.winners)
        answer = "yes" if verdict.ok else f"no: {asdict(verdict)}"
        print(f"{number:4}  {moment.phase:6} {lived_s:8.2f} {stored:12} {winners:8}  {answer}", flush=True)
        row = {"phase": moment.phase, "after_s": lived_s, "store": trial.store.stem, "evaluations": stored}
        yield {**row, "winners": winners, "ok": verdict.ok, **asdict(verdict)}


def report(rows: Sequence[dict[str, Any]], last: Verdict, whole: Contents, resumed: Contents) -> dict[str, Any]:
    """Print and return what went wrong in all, and how the end compares with the undisturbed run."""
    verdicts = [*rows, asdict(last)]
    counts = {name: sum(len(each[name]) for each in verdicts) for name in asdict(last)}
    same = len(whole.winners & resumed.winners)
    print(f"{len(rows)} kills: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    print(f"{len(resumed.evaluations)} evaluations in the end, {len(whole.evaluations)} undisturbed")
    print(f"{same} of {len(whole.winners)} winners are those of the undisturbed run")
    return {
        "ok": not any(counts.values()),
        **counts,
        "evaluations": {"killed": len(resumed.evaluations), "undisturbed": len(whole.evaluations)},
        "winners": {"same": same, "undisturbed": len(whole.winners)},
        "kills": rows,
        "finish": asdict(last),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="*", metavar="KERNEL OPTION", help="what `tuner run` is given, after --")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="fixes the moments and what the search proposes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    command = [*(options.run or RUN), "--seed", str(options.seed)]
    print(f"tuner run {' '.join(command)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(command, Path(folder))
        _, whole, start = trial.finish()
        over_s = time.monotonic()
        starting_s = start.events("Evaluated")[0]["at_s"] - start.began_s
        final_s = over_s - start.events("FinalStarted")[0]["at_s"]
        trial.use_fresh_store()
        rows = list(kill_all(trial, draw_moments(options.kills, options.seed, starting_s, final_s)))
        last, resumed, _ = trial.finish()
    found = {"command": command, **report(rows, last, whole, resumed)}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
