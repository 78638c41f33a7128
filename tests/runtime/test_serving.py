"""Ops run what `tuner.lookup` answers: at every size, on the plan's own device, and nothing else when strict."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import store_examples
import torch
from bundle_examples import FUSED, LARGEST, SIZES, TABLE, winner
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import SCALE_ROWS, scale_rows_variant
from op_examples import arguments_of
from stub_driver import StubDriver
from triton.backends.compiler import GPUTarget

from tuner import api, serving
from tuner.catalog import load_folder
from tuner.errors import UserError
from tuner.records import (
    DEFAULT_TARGET,
    Bucket,
    Environment,
    Evidence,
    FrozenMapping,
    Portfolio,
    Shape,
    Target,
    Winner,
)
from tuner.runtime import Origin, WinnerTable
from tuner.runtime.op import Op
from tuner.runtime.steps import Step

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("caches")]

SCALE = load_folder(SCALE_ROWS)
VARIANTS = [scale_rows_variant(rows, marks=marks) for rows in (2, 4, 8) for marks in ((), ("num_rows",))]
H100, H200 = "NVIDIA H100", "NVIDIA H200"


def environment(device: str, triton: str = "") -> Environment:
    """Without a version of Triton it is none of another version than here."""
    evidence = Evidence.MEASURED if device else Evidence.ESTIMATED
    return Environment(DEFAULT_TARGET, evidence, device, "", triton, "", "")


def row(where: Environment, size: int, number: int) -> Winner:
    shape = Shape(num_rows=size, columns=128)
    return dataclasses.replace(store_examples.winner(0), variant=VARIANTS[number], shape=shape, environment=where)


def some_table(where: Environment, rows: dict[int, int], buckets: list[tuple[int, int | None, int]]) -> WinnerTable:
    fixed = FrozenMapping[int | str](columns=128)
    held = tuple(
        Bucket(fixed, first, None if length is None else first + length, VARIANTS[number])
        for first, length, number in buckets
    )
    portfolio = Portfolio("num_rows", held, 0, 0.0, 0.01) if held else None
    winners = tuple(row(where, size, number) for size, number in rows.items())
    return WinnerTable(SCALE.name, SCALE.source_digest, where, winners, portfolio)


numbers = st.integers(0, len(VARIANTS) - 1)
some_tables = st.lists(
    st.builds(
        some_table,
        st.builds(environment, st.sampled_from(["", H100, H200]), st.sampled_from(["", "2.0.0"])),
        st.dictionaries(st.integers(0, 120), numbers, max_size=6),
        st.lists(st.tuples(st.integers(0, 200), st.none() | st.integers(0, 60), numbers), max_size=4),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=150)
@given(tables=some_tables, device=st.sampled_from(["", H100]))
def test_an_op_runs_what_lookup_answers_at_every_size(tables: list[WinnerTable], device: str) -> None:
    found = serving.chosen(SCALE, tuple(tables), Shape(columns=128), device, DEFAULT_TARGET)
    runs = {size: step for step in found for size in range(step.first, 300)}
    for size, step in runs.items():
        answer = api.look_up(SCALE, tuple(tables), {"num_rows": size}, device, DEFAULT_TARGET)
        assert (step.variant, step.tuned) == (answer.variant, answer.origin is not Origin.BASELINE), size


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Winners at 1, 24 and 64 tokens, so that 128 is the last size with one."""
    monkeypatch.setenv("TUNER_STRICT", "1")
    monkeypatch.setattr(serving, "winner_tables", lambda _: (TABLE,))
    serving.load_op.cache_clear()
    yield
    serving.load_op.cache_clear()


def call(op: Op, tokens: int) -> None:
    shape = FUSED.spec.shape({"num_tokens": tokens, **SIZES})
    positional, keywords = arguments_of(FUSED.name, dict(FUSED.spec.make_inputs(shape, "cpu", 0)), shape)
    op(*positional, **keywords)


def test_a_strict_op_runs_winners_alone(strict: None, stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    op = serving.load_op(FUSED.name)
    assert len(op.warmup(max_num_tokens=LARGEST, **SIZES).binaries) > 4
    call(op, 128)
    with pytest.raises(UserError, match=r"has no winner at num_tokens=129,num_heads=8,.* for cpu") as caught:
        call(op, 129)
    assert "unset TUNER_STRICT" in caught.value.hint
    with pytest.raises(UserError, match="has no winner at num_tokens=129"):
        op.warmup(max_num_tokens=200, **SIZES)
    with pytest.raises(UserError, match="has no winner at num_tokens=1,num_heads=4"):
        op.warmup(max_num_tokens=2, num_heads=4, n_groups=2)
    assert len(stub.launches) == 1
    assert op.counts["fallbacks"] == 0
    monkeypatch.setenv("TUNER_STRICT", "0")
    serving.load_op.cache_clear()
    call(serving.load_op(FUSED.name), 129)


def test_a_baseline_that_won_is_a_winner(strict: None, stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    won = dataclasses.replace(TABLE, rows=(winner(16, FUSED.spec.baseline_variant),))
    monkeypatch.setattr(serving, "winner_tables", lambda _: (won,))
    op = serving.load_op(FUSED.name)
    call(op, 32)
    with pytest.raises(UserError, match="has no winner at num_tokens=33"):
        call(op, 33)


def test_the_gpu_of_the_plan_decides(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two, on the current one of which no winner runs."""
    asked: list[tuple[int, str, Target]] = []

    def chosen(kernel: Any, tables: Any, shape: Shape, device: str, target: Target) -> tuple[Step, ...]:
        asked.append((stub.device, device, target))
        return (Step(1, kernel.spec.baseline_variant),)

    monkeypatch.setattr(serving, "chosen", chosen)
    monkeypatch.setattr(stub, "get_current_target", lambda: GPUTarget("cuda", 90 if stub.device == 1 else 80, 32))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: H100 if stub.device == 1 else "A100")
    op = serving.load_op.__wrapped__(FUSED.name)
    for device in (torch.device("cpu", 1), torch.device("cpu", 0)):
        op.plans.of(device, SIZES)
    assert asked == [(1, H100, Target("cuda", "90")), (0, "A100", Target("cuda", "80"))]
    assert stub.device == -1
