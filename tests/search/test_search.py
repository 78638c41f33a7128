"""Each method over the contract, and what only one of them can do."""

import itertools
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from search_contract import SearchContract
from search_examples import LARGE, LARGE_SIZE, NEEDLE, SHAPE, SMALL, SPARSE, SPARSE_SIZE, time_us

from tuner.records import Variant
from tuner.search import Method, create_search
from tuner.search.grid_search import all_variants
from tuner.space import Constraint


class TestTpe(SearchContract):
    method = Method.TPE


class TestTpeOfTwoObjectives(SearchContract):
    method = Method.TPE
    objectives = 2


class TestRandom(SearchContract):
    method = Method.RANDOM


class TestGrid(SearchContract):
    method = Method.GRID
    seeded = False


BUDGET = 60
SEEDS = range(5)


def times_us(method: Method, seed: int, count: int, known: Iterable[Variant] = ()) -> list[float]:
    """The times of the next suggestions of a method that knows some variants already."""
    search = create_search(method, LARGE, SHAPE, seed)
    for variant in known:
        search.update(variant, (time_us(variant),))
    found = []
    for _ in range(count):
        variant = search.suggest()
        assert variant is not None
        found.append(time_us(variant))
        search.update(variant, (found[-1],))
    return found


def test_tpe_finds_better_variants_than_random_with_the_same_budget() -> None:
    """Several axes must be right at once; a random draw of 60 out of 480 seldom is."""
    assert len(list(all_variants(LARGE, SHAPE))) == LARGE_SIZE >= 300
    tpe, random = ([min(times_us(each, seed, BUDGET)) for seed in SEEDS] for each in (Method.TPE, Method.RANDOM))
    assert statistics.median(tpe) < statistics.median(random)
    assert statistics.mean(tpe) < statistics.mean(random)


def test_tpe_learns_from_an_earlier_run() -> None:
    """What it suggests first after 40 answers of random search is better than what it suggests first without them."""
    taught, untaught = [], []
    for seed in SEEDS:
        earlier = create_search(Method.RANDOM, LARGE, SHAPE, seed)
        known = [variant for variant in (earlier.suggest() for _ in range(40)) if variant]
        taught += times_us(Method.TPE, seed, 8, known)
        untaught += times_us(Method.TPE, seed, 8)
    assert statistics.mean(taught) < 0.9 * statistics.mean(untaught)


def test_tpe_of_two_objectives_finds_both_ends() -> None:
    """Time wants no mark, compiles want one: each end is found more often than by a random search."""

    def ends(method: Method, seed: int) -> tuple[float, float]:
        search = create_search(method, LARGE, SHAPE, seed, objectives=2)
        found = []
        for _ in range(BUDGET):
            variant = search.suggest()
            assert variant is not None
            found.append((time_us(variant), 2.0 - len(variant.specialization.do_not_specialize)))
            search.update(variant, found[-1])
        return tuple(min(time for time, compiles in found if compiles == wanted) for wanted in (1.0, 2.0))  # type: ignore[return-value]

    tpe, random = ([sum(ends(each, seed)) for seed in SEEDS] for each in (Method.TPE, Method.RANDOM))
    assert statistics.mean(tpe) < statistics.mean(random)


@pytest.mark.parametrize("method", [Method.TPE, Method.RANDOM])
def test_when_sampling_has_run_out_of_patience_the_rest_is_drawn_and_the_sampler_asked_seldom(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    ask = optuna.Study.ask

    def counted(study: optuna.Study) -> optuna.Trial:
        nonlocal asked
        asked += 1
        return ask(study)

    monkeypatch.setattr(optuna.Study, "ask", counted)
    search = create_search(method, SPARSE, SHAPE, seed=0)
    found, counts = [], []
    while (variant := search.suggest()) is not None:
        found.append(variant)
        counts.append(asked)
        search.update(variant, (1.0,))
    assert set(found) == set(all_variants(SPARSE, SHAPE))
    assert len(found) == SPARSE_SIZE
    steps = [after - before for before, after in itertools.pairwise([0, *counts, asked])]
    in_vain = next(index for index, step in enumerate(steps) if step >= 100)
    assert in_vain < len(steps) - 2
    assert max(steps[in_vain + 1 :]) <= 5


@pytest.mark.parametrize("method", [Method.TPE, Method.RANDOM])
def test_tight_constraints_leave_a_search_as_varied_as_the_space(method: Method) -> None:
    """In the order of the file all suggestions would be sets of the first configs."""
    tight = replace(NEEDLE.implementations[0], constraints=(Constraint("P0 + P1 + P2 + P3 + P4 + P5 >= 40"),))
    space = replace(NEEDLE, implementations=(tight,), candidates=("a", "b", "c"))
    assert len(list(space.configs(SHAPE))) == 34
    for seed in range(4):
        search = create_search(method, space, SHAPE, seed)
        found = list[Variant]()
        for _ in range(40):
            found.append(search.suggest())  # type: ignore[arg-type]
            search.update(found[-1], (1.0,))
        assert len({variant.config for variant in found}) > 15
        assert len({variant.specialization for variant in found}) > 5


def test_grid_goes_through_the_sets_of_a_config_before_the_next_config() -> None:
    search = create_search(Method.GRID, SMALL, SHAPE, 0)
    found = [search.suggest() for _ in range(6)]
    assert found == list(all_variants(SMALL, SHAPE))[:6]
    assert len({variant.config for variant in found[:3] if variant}) == 1


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import tuner.search", ("torch", "triton", "sqlalchemy", "optuna")),
        (
            "from tuner.search import Method, create_search; from search_examples import SHAPE, SMALL; "
            "create_search(Method.TPE, SMALL, SHAPE, 0).suggest()",
            ("torch", "triton", "sqlalchemy"),
        ),
    ],
    ids=["import", "use"],
)
def test_search_loads_no_compiler_and_no_store(code: str, unwanted: tuple[str, ...]) -> None:
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        {code}
        print([name for name in {unwanted} if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
