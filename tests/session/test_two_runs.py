"""Runs that share a database share the work: nothing is evaluated or decided twice, and nobody waits for the dead."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from session_fakes import (
    BASELINE,
    ENVIRONMENT,
    KERNEL,
    SHAPES,
    SPACE,
    SPACE_SIZE,
    Bench,
    Done,
    FakeCompilers,
    FakeEvaluator,
    code_by_config,
    config,
)
from sqlalchemy import select, update

from tuner.compile.builder import CompileJob
from tuner.processes import Failure
from tuner.ranking import estimated_winner
from tuner.records import Agreement, Binary, Evaluation, Shape, SpecializationSet, Status, Timing, Variant, Winner
from tuner.search import Method
from tuner.session import RunRequest
from tuner.session.evaluator import Contest, Decision, Rules, Undecided
from tuner.session.events import Evaluated, Event, FinalStarted, ShapeSkipped, WinnerChosen
from tuner.session.ledger import Ledger, Trial
from tuner.store import Store
from tuner.store.schema import ClaimRow, RunRow

WHOLE = SPACE_SIZE + 1
ALL_MARKED = SpecializationSet.of(["num_rows", "row_stride"])
BEST = Variant("scale_rows", config(4, 2), ALL_MARKED)


@pytest.fixture(autouse=True)
def quick(loop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs look at each other's work many times a second."""
    monkeypatch.setattr("tuner.session.ledger._BEAT_S", 0.05)
    monkeypatch.setattr("tuner.session.pipeline._POLL_S", 0.02)
    monkeypatch.setattr(loop, "_POLL_S", 0.02)


@pytest.fixture
def no_refinement(loop: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a search waits for others once, at its end."""
    monkeypatch.setattr("tuner.session.explore._KEPT_SHARE", 0)
    monkeypatch.setattr("tuner.session.explore._STAGE", 1000)


def in_threads(*runs: Callable[[], Done]) -> list[Done]:
    """What runs did that began at the same time."""
    done: list[Done | None] = [None] * len(runs)
    together = threading.Barrier(len(runs))

    def work(number: int) -> None:
        together.wait()
        done[number] = runs[number]()

    threads = [threading.Thread(target=work, args=[number], daemon=True) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    found = [each for each in done if each is not None]
    assert len(found) == len(runs), "a run raised, or hangs"
    return found


class OtherRun:
    """Another live run over the same store, which does only what a test tells it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        request = RunRequest(KERNEL, SPACE, SHAPES, None, WHOLE)
        self.ledger = Ledger(request, store, ENVIRONMENT, lambda evaluation: None)
        self._run_id = store.runs()[0].id

    def claim(self, *trials: Trial) -> None:
        for trial in trials:
            assert self.ledger.claim(trial)

    def finish(self, variant: Variant, shape: Shape, binary: Binary | None = None) -> None:
        """Store an evaluation, with a time that nobody else would find."""
        timing = Timing(0.5, 0.5, 0.5, 1)
        self.ledger.save(Evaluation(variant, shape, Status.PASSED, "", binary, Agreement(8, 0, 0), timing))

    def decide(self, shape: Shape) -> Winner:
        """Hold a final that it has claimed."""
        drawn_at = datetime.now(UTC)
        self.ledger.catch_up()
        done = self.ledger.done[shape]
        winner = estimated_winner(
            done[BASELINE], list(done.values()), ENVIRONMENT, KERNEL.source_digest, lambda variant: 1
        )
        self.ledger.save_winner(winner, drawn_at)
        return winner

    def fail(self, variant: Variant, shape: Shape) -> None:
        """Store that an evaluation crashed."""
        self.ledger.save(Evaluation(variant, shape, Status.CRASHED, "out of memory"))

    def die(self) -> None:
        """As if it had been killed on another machine a while ago."""
        with self._store._writing() as connection:
            silent = datetime.now(UTC) - timedelta(hours=1)
            connection.execute(update(RunRow).where(RunRow.id == self._run_id).values(host="elsewhere", beat_at=silent))


@contextmanager
def other_run(bench: Bench) -> Iterator[OtherRun]:
    with Store.open(bench.path) as store:
        yield OtherRun(store)


def after(count: int, act: Callable[[], object]) -> Callable[[Event], None]:
    """A watcher that acts once so many evaluations were told of."""
    seen = 0

    def watch(event: Event) -> None:
        nonlocal seen
        if isinstance(event, Evaluated):
            seen += 1
            if seen == count:
                act()

    return watch


def trials_of(*runs: Done) -> list[Trial]:
    return [trial for each in runs for trial in each.submitted]


def chosen(*runs: Done) -> list[Shape]:
    return [event.winner.shape for each in runs for event in each.of(WinnerChosen)]


# Both alive.


@pytest.mark.parametrize("method", Method)
def test_two_runs_evaluate_everything_once_and_decide_each_shape_once(bench: Bench, method: Method) -> None:
    """In the whole space both end with what one alone would have found."""
    first, second = in_threads(
        *[
            lambda seed=seed: bench.run(evaluator=FakeEvaluator(delay_s=0.005), trials=WHOLE, method=method, seed=seed)
            for seed in range(2)
        ]
    )
    trials = trials_of(first, second)
    assert len(trials) == len(set(trials)) == WHOLE * len(SHAPES)
    assert len(bench.rows()) == WHOLE * len(SHAPES)
    assert first.submitted
    assert second.submitted
    assert first.summary.evaluated + second.summary.evaluated == WHOLE * len(SHAPES)
    assert sorted(map(str, chosen(first, second))) == sorted(map(str, SHAPES))
    assert first.summary.winners == second.summary.winners
    assert {winner.variant for winner in first.summary.winners} == {BEST}
    assert not first.summary.timed_out
    assert not second.summary.timed_out


def test_two_runs_of_the_same_command_keep_to_its_trials(bench: Bench) -> None:
    """What the other has under way counts as planned."""
    first, second = in_threads(*[lambda: bench.run(evaluator=FakeEvaluator(delay_s=0.005), trials=9)] * 2)
    trials = trials_of(first, second)
    assert len(trials) == len(set(trials))
    for shape in SHAPES:
        assert sum(at == shape for _, at in trials) == 9
    assert first.summary.winners == second.summary.winners


def test_both_runs_learn_from_each_other(bench: Bench) -> None:
    """Every variant is a candidate of the final, whoever evaluated it."""
    first, second = in_threads(*[lambda: bench.run(evaluator=FakeEvaluator(delay_s=0.005), trials=WHOLE)] * 2)
    contests = [*first.evaluator.contests, *second.evaluator.contests]
    assert {each.baseline.shape for each in contests} == set(SHAPES)
    assert [len(each.evaluations) for each in contests] == [WHOLE] * len(SHAPES)


def test_a_binary_that_another_run_timed_meanwhile_is_not_timed_again(bench: Bench) -> None:
    """The sets of a config share its binary; the other run evaluates one of them while the baseline is timed here."""
    known, compilers = Variant("scale_rows", config(1, 1), ALL_MARKED), FakeCompilers(code_by_config)
    with other_run(bench) as other:

        def act() -> None:
            binary = compilers.binary(CompileJob(KERNEL.folder, known, SHAPES[0], ENVIRONMENT.target))
            other.finish(known, SHAPES[0], binary)
            time.sleep(0.1)  # then the next look is due

        evaluator = FakeEvaluator(delay_s=0.2)
        bench.run(compilers=compilers, evaluator=evaluator, trials=4, shapes=SHAPES[:1], watch=after(1, act))
    assert evaluator.submitted == [(BASELINE, SHAPES[0])]
    shared = [each for each in bench.evaluations() if each.variant.config == config(1, 1)]
    assert [each.timing.median_us for each in shared if each.timing] == [0.5] * 3


@pytest.mark.parametrize("noticed", ["by its beat", "by its claim"])
@pytest.mark.usefixtures("no_refinement")
def test_what_a_run_finished_and_no_longer_claims_is_not_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    """Even between two looks at the other's work: here there is only one, at the start."""
    monkeypatch.setattr("tuner.session.ledger._BEAT_S", 1000.0)
    early = Variant("scale_rows", config(1, 1), ALL_MARKED)
    claimed = [(BEST, SHAPES[0])] if noticed == "by its beat" else [(early, SHAPES[0]), (BEST, SHAPES[0])]
    with ExitStack() as stack:
        others = [stack.enter_context(other_run(bench))] if noticed == "by its beat" else []

        def begin() -> None:
            others.extend([] if others else [stack.enter_context(other_run(bench))])
            others[0].claim(*claimed)

        def finish() -> None:
            for trial in claimed:
                others[0].finish(*trial)
            others[0].ledger.finish()

        watchers = [after(1, begin), after(10, finish)]
        done = bench.run(trials=WHOLE, shapes=SHAPES[:1], watch=lambda event: [each(event) for each in watchers])
    assert not set(claimed) & set(done.submitted)
    assert len(done.submitted) == WHOLE - len(claimed)
    assert [winner.timing.median_us for winner in done.summary.winners] == [0.5]


def test_a_claim_sees_what_was_stored_until_then(bench: Bench) -> None:
    """The other may finish, and give up its claim, just before this run asks for the same."""
    with other_run(bench) as this, other_run(bench) as other:
        this.ledger.beat()  # sees that it has company
        other.claim((BEST, SHAPES[0]))
        other.finish(BEST, SHAPES[0])
        other.ledger.finish()
        assert not this.ledger.claim((BEST, SHAPES[0]))
        assert BEST in this.ledger.done[SHAPES[0]]
        assert this.ledger.claim((BEST, SHAPES[1]))


# A baseline that fails.


def crashing_baseline(variant: Variant, shape: Shape) -> Failure | None:
    return Failure(Status.CRASHED, "out of memory") if variant == BASELINE else None


def test_two_runs_each_with_a_failing_baseline_do_not_wait_for_each_other(bench: Bench) -> None:
    """Each has claimed one baseline before it asks for the other's."""
    both_claimed = threading.Barrier(2, timeout=10)

    class Meeting(FakeCompilers):
        def submit(self, *arguments: Any, **named: Any) -> Any:
            if not self.jobs:
                both_claimed.wait()
            return super().submit(*arguments, **named)

    def compilers() -> FakeCompilers:
        return Meeting(fault=crashing_baseline)

    first, second = in_threads(
        *[
            lambda at=at: bench.run(compilers=compilers(), trials=4, shapes=at, timeout_s=20.0)
            for at in (SHAPES, SHAPES[::-1])
        ]
    )
    assert (first.submitted[0], second.submitted[0]) == ((BASELINE, SHAPES[0]), (BASELINE, SHAPES[1]))
    assert len(trials_of(first, second)) == len(set(trials_of(first, second)))
    for done in (first, second):
        assert not done.summary.timed_out
        assert {event.shape for event in done.of(ShapeSkipped)} == set(SHAPES)
        assert all("crashed: out of memory" in event.reason for event in done.of(ShapeSkipped))


def test_a_baseline_that_fails_in_another_live_run_has_failed_for_this_one(bench: Bench) -> None:
    with other_run(bench) as other:
        other.claim((BASELINE, SHAPES[0]))
        act = after(1, lambda: other.fail(BASELINE, SHAPES[0]))
        done = bench.run(trials=4, timeout_s=20.0, watch=act)
    assert not done.summary.timed_out
    assert (BASELINE, SHAPES[0]) not in done.submitted
    (skipped,) = done.of(ShapeSkipped)
    assert (skipped.shape, "out of memory" in skipped.reason) == (SHAPES[0], True)
    assert [winner.shape for winner in done.summary.winners] == [SHAPES[1]]


def test_a_failed_baseline_that_another_run_tries_again_is_left_to_it(bench: Bench) -> None:
    """It failed in a run before both; this one tries again where nobody else does."""
    bench.run(compilers=FakeCompilers(fault=crashing_baseline), trials=4)
    with other_run(bench) as other:
        other.claim((BASELINE, SHAPES[0]))
        done = bench.run(trials=4, timeout_s=20.0)
        other.ledger.finish()
    assert not done.summary.timed_out
    assert done.submitted[0] == (BASELINE, SHAPES[1])
    assert (BASELINE, SHAPES[0]) not in done.submitted
    assert [event.shape for event in done.of(ShapeSkipped)] == [SHAPES[0]]
    assert [winner.shape for winner in done.summary.winners] == [SHAPES[1]]
    alone = bench.run(trials=4)
    assert alone.submitted[0] == (BASELINE, SHAPES[0])
    assert [winner.shape for winner in alone.summary.winners] == list(SHAPES)


# One waits for the other.


@pytest.mark.usefixtures("no_refinement")
def test_a_trial_that_another_run_finishes_is_waited_for_and_not_repeated(bench: Bench) -> None:
    with other_run(bench) as other:
        other.claim((BEST, SHAPES[0]))
        last = WHOLE - 1
        done = bench.run(trials=WHOLE, shapes=SHAPES[:1], watch=after(last, lambda: other.finish(BEST, SHAPES[0])))
    assert done.summary.evaluated == len(done.submitted) == last
    assert (BEST, SHAPES[0]) not in done.submitted
    (winner,) = done.summary.winners
    assert (winner.variant, winner.timing.median_us) == (BEST, 0.5)


@pytest.mark.usefixtures("no_refinement")
def test_a_trial_that_another_run_gives_up_is_done_here(bench: Bench) -> None:
    with other_run(bench) as other:
        other.claim((BEST, SHAPES[0]))
        done = bench.run(trials=WHOLE, shapes=SHAPES[:1], watch=after(WHOLE - 1, other.ledger.give_up))
    assert done.submitted[-1] == (BEST, SHAPES[0])


@pytest.mark.usefixtures("no_refinement")
def test_the_work_of_a_dead_run_is_taken_over(bench: Bench) -> None:
    """While it lived, its trials were left to it, the baseline's too."""
    claimed = [(BASELINE, SHAPES[1]), (BEST, SHAPES[0]), (BEST, SHAPES[1])]
    rest = WHOLE * len(SHAPES) - len(claimed)
    with other_run(bench) as other:
        other.claim(*claimed)
        done = bench.run(trials=WHOLE, watch=after(rest, other.die))
    assert set(done.submitted[rest:]) == set(claimed)
    assert not set(done.submitted[:rest]) & set(claimed)
    assert len(done.submitted) == len(set(done.submitted)) == WHOLE * len(SHAPES)
    assert {winner.variant for winner in done.summary.winners} == {BEST}


def test_the_finals_of_a_dead_run_are_held_here(bench: Bench) -> None:
    with other_run(bench) as other:
        assert other.ledger.claim_final(SHAPES[0])
        done = bench.run(trials=4, watch=lambda event: other.die() if isinstance(event, WinnerChosen) else None)
    assert chosen(done) == [SHAPES[1], SHAPES[0]]
    assert [winner.shape for winner in done.summary.winners] == list(SHAPES)


def test_the_winner_that_another_run_decides_is_this_runs_too(bench: Bench) -> None:
    decided = list[Winner]()
    with other_run(bench) as other:
        assert other.ledger.claim_final(SHAPES[0])

        def watch(event: Event) -> None:
            if isinstance(event, WinnerChosen):
                decided.append(other.decide(SHAPES[0]))

        done = bench.run(trials=4, watch=watch)
    assert chosen(done) == [SHAPES[1]]
    assert [winner.shape for winner in done.summary.winners] == list(SHAPES)
    assert done.summary.winners[0].variant == decided[0].variant
    assert not done.summary.timed_out


def test_a_run_waits_for_anothers_trial_no_longer_than_its_time(bench: Bench) -> None:
    with other_run(bench) as other:
        other.claim((BASELINE, SHAPES[0]), (BEST, SHAPES[1]))
        begun = time.monotonic()
        done = bench.run(trials=WHOLE, timeout_s=2.0)
        assert time.monotonic() - begun >= 2.0
    assert done.summary.timed_out
    assert not set(done.submitted) & {(BASELINE, SHAPES[0]), (BEST, SHAPES[1])}
    (skipped,) = done.of(ShapeSkipped)
    assert (skipped.shape, "not evaluated" in skipped.reason) == (SHAPES[0], True)
    assert [winner.shape for winner in done.summary.winners] == [SHAPES[1]]


def test_a_run_waits_for_anothers_final_no_longer_than_its_time(bench: Bench) -> None:
    """Meanwhile it shows that it is alive."""

    def watch(event: Event) -> None:
        if isinstance(event, WinnerChosen):
            silent(bench, 50.0)

    with other_run(bench) as other:
        assert other.ledger.claim_final(SHAPES[0])
        done = bench.run(trials=4, timeout_s=1.0, watch=watch)
    assert done.summary.timed_out
    (skipped,) = done.of(ShapeSkipped)
    assert skipped.shape == SHAPES[0]
    assert "before it was decided" in skipped.reason
    assert [winner.shape for winner in done.summary.winners] == [SHAPES[1]]
    assert silence_s(bench) < 40.0


def test_two_runs_that_each_leave_a_shape_undecided_both_end(bench: Bench) -> None:
    """There is time for one final at once, so each begins with one; then each tries the other's."""
    both_hold_one = threading.Barrier(2, timeout=10)

    class Loses(FakeEvaluator):
        def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
            first = not self.contests
            self.contests += contests
            if first:
                both_hold_one.wait()
            for contest in contests:
                yield Undecided(contest.baseline.shape, Failure(Status.CRASHED, "the machine went away"))

        def decide_s(self, shapes: int) -> float:
            return 6.0 * shapes

    first, second = in_threads(
        *[
            lambda at=at: bench.run(evaluator=Loses(), trials=4, shapes=at, timeout_s=10.0)
            for at in (SHAPES, SHAPES[::-1])
        ]
    )
    assert [each.baseline.shape for each in first.evaluator.contests] == list(SHAPES)
    assert [each.baseline.shape for each in second.evaluator.contests] == list(SHAPES[::-1])
    assert not first.summary.timed_out
    assert not second.summary.timed_out
    assert all("the machine went away" in event.reason for each in (first, second) for event in each.of(ShapeSkipped))


# What is left behind.


@pytest.mark.parametrize("cut", [FinalStarted, Evaluated])
def test_a_run_that_is_broken_off_or_done_holds_nothing_any_more(bench: Bench, cut: type) -> None:
    def watch(event: Event) -> None:
        if isinstance(event, cut):
            with Store.open(bench.path) as store, store._reading() as session:
                assert session.scalars(select(ClaimRow)).all()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(trials=4, watch=watch)
    assert _claims(bench) == []
    bench.run(trials=4)
    assert _claims(bench) == []


def _claims(bench: Bench) -> Sequence[str]:
    with Store.open(bench.path) as store, store._reading() as session:
        return session.scalars(select(ClaimRow.key)).all()


def test_a_long_final_shows_that_the_run_is_alive(bench: Bench) -> None:
    """With each thing that it tells."""
    silences_s = list[float]()

    class Slow(FakeEvaluator):
        def decide(self, contests: Sequence[Contest], rules: Rules) -> Iterator[Decision]:
            for contest in contests:
                silent(bench, 50.0)
                time.sleep(0.1)  # then a beat is due
                yield from super().decide([contest], rules)
                silences_s.append(silence_s(bench))

    bench.run(evaluator=Slow(), trials=2)
    assert len(silences_s) == len(SHAPES)
    assert max(silences_s) < 40.0


def silent(bench: Bench, seconds: float) -> None:
    """Let the run that began last look as if it had not been heard of for so long."""
    with Store.open(bench.path) as store, store._writing() as connection:
        beat_at = datetime.now(UTC) - timedelta(seconds=seconds)
        connection.execute(update(RunRow).where(RunRow.id == store.runs()[0].id).values(beat_at=beat_at))


def silence_s(bench: Bench) -> float:
    """Since when the run that began last has not been heard of."""
    with Store.open(bench.path) as store, store._reading() as session:
        beat_at = session.scalars(select(RunRow.beat_at).order_by(RunRow.id.desc())).first()
        assert beat_at is not None
        return (datetime.now(UTC) - beat_at).total_seconds()


def test_time_for_one_final_is_spent_on_one_that_is_free(bench: Bench) -> None:
    class Slow(FakeEvaluator):
        def decide_s(self, shapes: int) -> float:
            return 3.0 * shapes

    with other_run(bench) as other:
        assert other.ledger.claim_final(SHAPES[0])
        done = bench.run(evaluator=Slow(), trials=4, timeout_s=5.0)
    assert [winner.shape for winner in done.summary.winners] == [SHAPES[1]]
