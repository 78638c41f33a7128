"""What every database behind `Store` must do; a subclass names the database by its `url` fixture."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import store_process
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from sqlalchemy import event, text
from store_examples import (
    ENVIRONMENT,
    SOURCE,
    arguments,
    environments,
    evaluation,
    evaluations,
    shape,
    variant,
    winner,
    winners,
)

from tuner.errors import StoreError
from tuner.records import Evaluation, FrozenMapping, Shape, Status, Timing, Winner
from tuner.store import Store
from tuner.store.migrate import HEAD
from tuner.store.schema import VERSION_TABLE, Base

arbitrary = settings(max_examples=25, deadline=None)


def begin(store: Store, kernel: str = "scale") -> int:
    return store.start_run(kernel, SOURCE, ENVIRONMENT, 7, {})


def execute(store: Store, statement: str) -> None:
    with store._writer.begin() as connection:
        connection.execute(text(statement))


def ended(number: int, status: Status, log: str = "", tokens: int = 64) -> Evaluation:
    return Evaluation(variant(number), shape(tokens), status, log)


def told(whole: Winner) -> Winner:
    """A winner as a table tells of it."""
    timings = {name: replace(getattr(whole, name), samples_us=()) for name in ("timing", "baseline_timing")}
    return replace(whole, **timings)


class StoreContract:
    # Round trips.

    def test_every_evaluation_comes_back_as_it_went_in(self, url: str) -> None:
        with Store.open(url) as store:

            @arbitrary
            @given(evaluations, environments)
            def check(given_evaluation: Evaluation, environment: object) -> None:
                source = uuid.uuid4().hex
                run = store.start_run("any", source, environment, 0, {})
                store.save(run, source, environment, given_evaluation)
                assert store.evaluations(given_evaluation.variant.kernel, source, environment) == [given_evaluation]

            check()

    def test_every_winner_comes_back_as_it_went_in(self, url: str) -> None:
        with Store.open(url) as store:

            @arbitrary
            @given(winners)
            def check(given_winner: object) -> None:
                store.save_winners([given_winner])
                assert given_winner in store.winners(given_winner.variant.kernel)

            check()

    def test_every_run_comes_back_as_it_went_in(self, url: str) -> None:
        with Store.open(url) as store:

            @arbitrary
            @given(arguments, environments)
            def check(given_arguments: dict[str, object], environment: object) -> None:
                run = store.start_run("scale", SOURCE, environment, 2**40, given_arguments)
                found = store.runs("scale")[0]
                assert (found.id, found.kernel, found.source_digest, found.environment) == (
                    run,
                    "scale",
                    SOURCE,
                    environment,
                )
                assert (found.seed, found.arguments, found.finished_at) == (2**40, given_arguments, None)

            check()

    def test_what_was_saved_is_there_after_opening_again(self, url: str) -> None:
        with Store.open(url) as store:
            run = begin(store)
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
            store.save_winners([winner(1)])
            store.finish_run(run)
        with Store.open(url) as store:
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [evaluation(1)]
            assert store.winners() == [winner(1)]
            assert store.runs()[0].finished_at is not None

    def test_the_order_of_a_shape_is_kept_for_people(self, url: str) -> None:
        with Store.open(url) as store:
            store.save(begin(store), SOURCE, ENVIRONMENT, evaluation(1))
            store.save_winners([winner(1)])
            found = [store.evaluations("scale", SOURCE, ENVIRONMENT)[0].shape, store.winners()[0].shape]
        assert {each.label for each in found} == {"num_tokens=64,hidden=4096,dtype=bf16"}

    def test_a_log_that_no_database_takes_is_stored_with_marks(self, url: str) -> None:
        failed = Evaluation(variant(1), shape(1), Status.CRASHED, "before\0\ud800after")
        with Store.open(url) as store:
            store.save(begin(store), SOURCE, ENVIRONMENT, failed)
            assert store.evaluations("scale", SOURCE, ENVIRONMENT)[0].log == "before\ufffd\ufffdafter"

    # Evaluations.

    def test_evaluations_come_in_the_order_in_which_they_were_saved(self, url: str) -> None:
        order = [(3, 64), (1, 8), (2, 64), (0, 8), (1, 64)]
        with Store.open(url) as store:
            run = begin(store)
            for number, tokens in order:
                store.save(run, SOURCE, ENVIRONMENT, evaluation(number, tokens))
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [evaluation(*each) for each in order]
            many = [shape(tokens) for tokens in range(3000)]
            assert store.evaluations("scale", SOURCE, ENVIRONMENT, many) == [evaluation(*each) for each in order]

    def test_the_first_result_of_a_key_stays(self, url: str) -> None:
        again = Evaluation(variant(1), shape(64), Status.CRASHED, "later")
        with Store.open(url) as store:
            run = begin(store)
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
            store.save(begin(store), SOURCE, ENVIRONMENT, again)
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [evaluation(1)]

    def test_a_failure_makes_way_for_a_pass_but_not_for_another_failure(self, url: str) -> None:
        failed, again = (Evaluation(variant(1), shape(64), Status.CRASHED, log) for log in ("first", "later"))
        with Store.open(url) as store:
            runs = [begin(store) for _ in range(3)]
            for run, each, stays in zip(
                runs, (failed, again, evaluation(1)), (failed, failed, evaluation(1)), strict=True
            ):
                store.save(run, SOURCE, ENVIRONMENT, each)
                store.save(run, SOURCE, ENVIRONMENT, Evaluation(variant(2), shape(64), Status.TIMED_OUT))
                (found,) = [
                    each for each in store.evaluations("scale", SOURCE, ENVIRONMENT) if each.variant == variant(1)
                ]
                assert found == stays
            assert [run.evaluations for run in store.runs()] == [1, 0, 1]  # newest first; the pass is of the last run

    def test_a_failure_that_passes_later_gets_the_conditions_too(self, url: str) -> None:
        with Store.open(url) as store:
            run = begin(store)
            store.save(run, SOURCE, ENVIRONMENT, ended(1, Status.CRASHED))
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
            (found,) = store.evaluations("scale", SOURCE, ENVIRONMENT)
            assert found.conditions == evaluation(1).conditions is not None

    def test_what_passed_makes_way_for_wrong_output_and_its_time_is_gone(self, url: str) -> None:
        wrong = ended(1, Status.WRONG_OUTPUT)
        with Store.open(url) as store:
            first, second = begin(store), begin(store)
            store.save(first, SOURCE, ENVIRONMENT, evaluation(1))
            store.save(first, SOURCE, ENVIRONMENT, evaluation(1, tokens=8))
            store.save_winners([winner(1)])
            store.save(second, SOURCE, ENVIRONMENT, wrong)
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [wrong, evaluation(1, tokens=8)]
            assert store.standing_winners("scale", SOURCE, ENVIRONMENT) == []

    @pytest.mark.parametrize("status", Status)
    def test_wrong_output_stays_whatever_comes(self, url: str, status: Status) -> None:
        wrong = ended(1, Status.WRONG_OUTPUT, "first")
        later = evaluation(1) if status is Status.PASSED else ended(1, status, "later")
        with Store.open(url) as store:
            run = begin(store)
            store.save(run, SOURCE, ENVIRONMENT, wrong)
            store.save(run, SOURCE, ENVIRONMENT, later)
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [wrong]

    def test_the_variants_that_ended_in_a_status_at_any_shape(self, url: str) -> None:
        elsewhere = replace(ENVIRONMENT, driver="999")
        with Store.open(url) as store:
            run = begin(store)
            for each in (
                evaluation(1, tokens=8),
                ended(1, Status.WRONG_OUTPUT),
                ended(2, Status.WRONG_OUTPUT),
                ended(2, Status.WRONG_OUTPUT, tokens=8),
                ended(3, Status.CRASHED),
            ):
                store.save(run, SOURCE, ENVIRONMENT, each)
            store.save(run, "other source", ENVIRONMENT, ended(4, Status.WRONG_OUTPUT))
            store.save(run, SOURCE, elsewhere, ended(5, Status.WRONG_OUTPUT))
            asked = ("scale", SOURCE, ENVIRONMENT)
            assert store.variants_ended(*asked, Status.WRONG_OUTPUT) == {variant(1), variant(2)}
            assert store.variants_ended(*asked, Status.PASSED) == {variant(1)}
            assert store.variants_ended(*asked, Status.TIMED_OUT) == set()
            assert store.variants_ended("other", SOURCE, ENVIRONMENT, Status.WRONG_OUTPUT) == set()

    def test_each_part_of_the_key_makes_another_result(self, url: str) -> None:
        elsewhere = type(ENVIRONMENT)(**{**vars(ENVIRONMENT), "driver": "999"})
        with Store.open(url) as store:
            run = begin(store)
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1))
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1, tokens=8))
            store.save(run, SOURCE, ENVIRONMENT, evaluation(2))
            store.save(run, "other source", ENVIRONMENT, evaluation(1))
            store.save(run, SOURCE, elsewhere, evaluation(1))
            store.save(run, SOURCE, ENVIRONMENT, evaluation(1, kernel="other"))
            assert len(store.evaluations("scale", SOURCE, ENVIRONMENT)) == 3
            assert store.evaluations("scale", SOURCE, ENVIRONMENT, [shape(8)]) == [evaluation(1, tokens=8)]
            assert len(store.evaluations("scale", "other source", ENVIRONMENT)) == 1
            assert len(store.evaluations("scale", SOURCE, elsewhere)) == 1
            assert len(store.evaluations("other", SOURCE, ENVIRONMENT)) == 1
            assert store.evaluations("scale", SOURCE, ENVIRONMENT, []) == []
            assert store.evaluations("scale", SOURCE, ENVIRONMENT, [Shape(num_tokens=8)]) == []

    def test_a_time_that_is_not_finite_is_refused(self, url: str) -> None:
        strange = Evaluation(variant(1), shape(1), Status.PASSED, timing=Timing(1.0, 1.0, 1.0, 1, (float("nan"),)))
        with Store.open(url) as store, pytest.raises(StoreError, match="nan us"):
            store.save(begin(store), SOURCE, ENVIRONMENT, strange)

    def test_a_failed_save_leaves_nothing(self, url: str) -> None:
        with Store.open(url) as store:
            with pytest.raises(StoreError, match="Cannot write the store"):
                store.save(12345, SOURCE, ENVIRONMENT, evaluation(1))
            with store._engine.connect() as connection:
                for table in ("evaluation", "variant", "binary", "environment"):
                    assert connection.execute(text(f"SELECT count(*) FROM tuner_{table}")).scalar() == 0

    def test_a_number_wider_than_the_column_is_a_store_error(self, url: str) -> None:
        with Store.open(url) as store, pytest.raises(StoreError):
            store.start_run("scale", SOURCE, ENVIRONMENT, 2**70, {})

    def test_reading_takes_the_same_few_queries_whatever_the_number_of_rows(self, url: str) -> None:
        with Store.open(url) as store:
            run = begin(store)
            for number in range(20):
                store.save(run, SOURCE, ENVIRONMENT, evaluation(number))
            statements: list[str] = []
            event.listen(store._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
            assert len(store.evaluations("scale", SOURCE, ENVIRONMENT)) == 20
            assert len([each for each in statements if "SELECT" in each]) == 3

    # Rows that cannot be read.

    def test_an_unknown_status_names_the_nearest(self, url: str) -> None:
        with Store.open(url) as store:
            store.save(begin(store), SOURCE, ENVIRONMENT, evaluation(1))
            execute(store, "UPDATE tuner_evaluation SET status = 'pased'")
            with pytest.raises(StoreError, match=r"Unknown status 'pased'.*did you mean 'passed'\?"):
                store.evaluations("scale", SOURCE, ENVIRONMENT)

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE tuner_evaluation SET status = 'crashed'",
            "UPDATE tuner_evaluation SET median_us = NULL",
            "UPDATE tuner_variant SET parameters = '3'",
            "UPDATE tuner_environment SET evidence = 'hearsay', target = 'nowhere'",
        ],
    )
    def test_a_row_that_is_no_record_is_a_store_error(self, url: str, damage: str) -> None:
        with Store.open(url) as store:
            store.save(begin(store), SOURCE, ENVIRONMENT, evaluation(1))
            execute(store, damage)
            with pytest.raises(StoreError, match="not a valid record"):
                store.evaluations("scale", SOURCE, ENVIRONMENT)
                store.runs()

    # Winners and runs.

    def test_a_new_winner_replaces_the_old_one_of_its_key(self, url: str) -> None:
        with Store.open(url) as store:
            store.save_winners([winner(1, 8), winner(1, 64), winner(5, kernel="other")])
            store.save_winners([winner(2, 8)])
            assert store.winners("scale") == [winner(2, 8), winner(1, 64)]
            assert len(store.winners()) == 3
            assert store.winners("none such") == []

    def test_a_winner_that_was_found_wrong_since_is_none_any_more(self, url: str) -> None:
        """At whichever shape; a baseline stays, and so does the variant where the environment is another."""
        wrong = replace(evaluation(1, tokens=4096), status=Status.WRONG_OUTPUT, timing=None, conditions=None)
        stays = replace(winner(1, 16), baseline=winner(1, 16).variant)
        elsewhere = replace(winner(1, 8), environment=replace(ENVIRONMENT, driver="999"))
        with Store.open(url) as store:
            store.save_winners([winner(1, 8), winner(2, 64), stays, elsewhere])
            store.save(begin(store), SOURCE, ENVIRONMENT, wrong)
            assert sorted(store.winners(), key=repr) == sorted([winner(2, 64), stays, elsewhere], key=repr)
            assert winner(1, 8) not in store.standing_winners("scale", SOURCE, ENVIRONMENT)

    def test_a_winner_stands_when_it_was_drawn_after_all_that_passed_and_checked_where_it_serves(
        self, url: str
    ) -> None:
        """A failure that comes later changes no winner."""
        at = winner(1, 8).shape
        with Store.open(url) as store:
            run, before = begin(store), datetime.now(UTC)
            store.save_winners([winner(1, 8)], served="both")
            failed = replace(evaluation(3, tokens=8), status=Status.CRASHED, timing=None, conditions=None)
            store.save(run, SOURCE, ENVIRONMENT, failed)
            key = ("scale", SOURCE, ENVIRONMENT)
            assert store.standing_winners(*key) == [winner(1, 8)]
            assert store.standing_winners(*key, {at: "both"}) == [winner(1, 8)]
            assert store.standing_winners(*key, {at: "others"}) == store.standing_winners(*key, {}) == []
            store.save(run, SOURCE, ENVIRONMENT, evaluation(5, tokens=8))
            assert store.standing_winners(*key) == []
            store.save_winners([winner(2, 8)], drawn_at=before)  # that evaluation was not among the candidates
            assert store.standing_winners(*key) == []
            store.save_winners([winner(2, 8)], drawn_at=datetime.now(UTC))
            assert store.standing_winners(*key) == [winner(2, 8)]

    def test_of_two_winners_of_a_key_in_one_call_the_last_stays(self, url: str) -> None:
        with Store.open(url) as store:
            store.save_winners(iter([winner(1), winner(2)]))
            assert store.winners() == [winner(2)]

    def test_winners_are_saved_all_or_none(self, url: str) -> None:
        broken = type(winner(2))(**{**vars(winner(2, 8)), "compiles": 2**70})
        with Store.open(url) as store:
            store.save_winners([winner(1, 8)])
            with pytest.raises(StoreError):
                store.save_winners([winner(9, 64), broken])
            assert store.winners() == [winner(1, 8)]

    def test_an_adopted_winner_replaces_none_that_has_its_samples(self, url: str) -> None:
        """Neither itself, as a table tells of it, nor another choice; what it was checked at stays known too."""
        with Store.open(url) as store:
            store.save_winners([winner(1, 8), winner(1, 64)], served="both")
            before, many = store.winners(), Timing(10.1, 10.0, 10.4, 99)
            assert store.adopt_winners([told(winner(1, 8)), replace(told(winner(2, 64)), timing=many)]) == 0
            assert store.winners() == before
            assert len(store.standing_winners("scale", SOURCE, ENVIRONMENT, {shape(8): "both", shape(64): "both"})) == 2
            assert store.adopt_winners([told(winner(2, 64)), told(winner(2, 512))]) == 1
            assert store.winners()[0] == told(winner(2, 512))

    def test_an_adopted_winner_makes_way_for_another_of_as_many_samples(self, url: str) -> None:
        first, other = told(winner(1, 8)), told(winner(2, 8))
        fewer = replace(told(winner(3, 8)), timing=replace(first.timing, count=first.timing.count - 1))
        with Store.open(url) as store:
            assert [store.adopt_winners([each]) for each in (first, first, other, fewer)] == [1, 0, 1, 0]
            assert store.winners() == [other]

    def test_a_winner_that_a_table_holds_under_several_versions_is_there_already(self, url: str) -> None:
        mixed = replace(ENVIRONMENT, driver="580.65 or 590.10", protocol=1)
        elsewhere = replace(mixed, device="NVIDIA H200")
        with Store.open(url) as store:
            store.save_winners([winner(1, 8)])
            assert store.adopt_winners([told(replace(winner(1, size), environment=mixed)) for size in (8, 64)]) == 1
            assert [each.shape for each in store.winners()] == [shape(64), shape(8)]
            assert store.adopt_winners([told(replace(winner(1, 8), environment=elsewhere))]) == 1

    def test_runs_come_newest_first_with_what_they_added(self, url: str) -> None:
        with Store.open(url) as store:
            first, second = begin(store), begin(store, "other")
            for run, number in [(first, 1), (first, 2), (second, 1)]:
                store.save(run, SOURCE, ENVIRONMENT, evaluation(number))
            store.finish_run(first)
            found = store.runs()
            assert [(run.id, run.evaluations) for run in found] == [(second, 0), (first, 2)]
            assert [run.id for run in store.runs("scale")] == [first]
            assert found[0].finished_at is None
            ended = found[1].finished_at
            assert ended is not None and ended.utcoffset() == timedelta(0)
            assert datetime.now(UTC) - timedelta(minutes=1) < found[1].started_at <= ended <= datetime.now(UTC)

    def test_arguments_that_json_cannot_hold_are_stored_as_text(self, url: str) -> None:
        with Store.open(url) as store:
            store.start_run("scale", SOURCE, ENVIRONMENT, 0, {"space": Path("a.yaml"), "set": FrozenMapping(a=1)})
            assert store.runs()[0].arguments["space"] == "a.yaml"

    def test_finishing_an_unknown_run_is_a_store_error(self, url: str) -> None:
        with Store.open(url) as store, pytest.raises(StoreError, match="no run 99"):
            store.finish_run(99)

    # Schema.

    def test_the_migrations_make_the_tables_of_the_models(self, url: str) -> None:
        with Store.open(url) as store, store._engine.connect() as connection:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []

    def test_a_store_of_the_first_schema_keeps_its_rows_and_has_no_conditions(self, url: str) -> None:
        added = {
            "evaluation": ("sm_clock_mhz", "temperature_c", "throttle"),
            "run": ("host", "pid", "beat_at"),
            "winner": ("served",),
        }
        with Store.open(url) as store:
            old = begin(store)
            store.save(old, SOURCE, ENVIRONMENT, evaluation(1))
            execute(store, "DROP TABLE tuner_claim")
            for table, columns in added.items():
                for column in columns:
                    execute(store, f"ALTER TABLE tuner_{table} DROP COLUMN {column}")
            execute(store, f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
        with Store.open(url) as store:
            kept = replace(evaluation(1), conditions=None)
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [kept]
            new = begin(store)
            assert store.others(new) == 0  # the old run never ended, and never beat
            store.save(new, SOURCE, ENVIRONMENT, evaluation(2))
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [kept, evaluation(2)]
            assert [run.id for run in store.runs()] == [new, old]

    def test_a_newer_schema_is_refused_and_left_alone(self, url: str) -> None:
        with Store.open(url) as store:
            store.save_winners([winner(1)])
            execute(store, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
            for read_only in (False, True):
                with pytest.raises(StoreError, match=rf"schema '9999'.*up to '{HEAD}'.*\n.*upgrade tuner"):
                    Store.open(url, read_only=read_only)
            assert store.winners() == [winner(1)]

    def test_read_only_reads_and_does_not_write(self, url: str) -> None:
        with Store.open(url) as store:
            store.save(begin(store), SOURCE, ENVIRONMENT, evaluation(1))
        with Store.open(url, read_only=True) as store:
            assert store.evaluations("scale", SOURCE, ENVIRONMENT) == [evaluation(1)]
            with pytest.raises(StoreError, match="opened for reading only"):
                begin(store)

    # Processes.

    def test_many_processes_open_a_fresh_store_at_once(self, url: str) -> None:
        openers = [store_process.start(url, number, number + 1) for number in range(4)]
        store_process.go(*openers)
        assert sorted(store_process.finish(opener).strip() for opener in openers) == ["0", "1", "2", "3"]
        with Store.open(url) as store:
            assert len(store.evaluations("scale", SOURCE, ENVIRONMENT)) == 4

    def test_two_writers_of_the_same_keys_lose_nothing(self, url: str) -> None:
        Store.open(url).close()
        writers = [store_process.start(url, 0, 150), store_process.start(url, 50, 200)]
        store_process.go(*writers)
        for writer in writers:
            store_process.finish(writer)
        with Store.open(url) as store:
            found = store.evaluations("scale", SOURCE, ENVIRONMENT)
            assert sorted(found, key=lambda each: each.log) == sorted(
                map(evaluation, range(200)), key=lambda each: each.log
            )

    def test_a_killed_writer_loses_at_most_what_was_in_flight(self, url: str) -> None:
        reached = 0
        for _ in range(2):
            writer = store_process.start(url, reached, 10**6)
            store_process.go(writer)
            target = reached + 60
            while reached < target:
                reached = int(store_process.read_line(writer)) + 1
            writer.kill()
            assert writer.stdout is not None
            reached = max([reached, *(int(line) + 1 for line in writer.stdout.read().split("\n")[:-1])])
            assert writer.wait() == -9
            with Store.open(url) as store:
                found = store.evaluations("scale", SOURCE, ENVIRONMENT)
            assert found[:reached] == [evaluation(number) for number in range(reached)]
            assert len(found) <= reached + 1
            reached = len(found)
