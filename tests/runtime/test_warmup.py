"""Warm-up: what calls up to the bound reach is compiled, nothing else, and nothing is left to compile."""

import gc
import random
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from op_examples import arguments_of
from stub_driver import StubDriver

import tuner
from tuner.catalog import load_kernel
from tuner.compile.specialization import reachable_keys
from tuner.errors import UnknownNameError, UserError
from tuner.records import DEFAULT_TARGET, Config, FrozenMapping, Shape, SpecializationSet, Variant
from tuner.runtime.binaries import Key
from tuner.runtime.launcher import Launcher
from tuner.runtime.op import Op
from tuner.runtime.steps import Step
from tuner.runtime.warmup import WarmupReport, in_threads

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("caches")]

FUSED = load_kernel("fused_inv_rope_fp8_quant")
TILE = Config(
    "tile",
    FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=2, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0),
    FrozenMapping(num_warps=4, num_stages=1),
)
MARKED = Variant(FUSED.name, TILE, SpecializationSet.of(["num_tokens", "scale_stride_block"]))
PLAIN = Variant(FUSED.name, FUSED.spec.baseline)
SIZES = {"num_heads": 8, "n_groups": 2}
LARGEST = 70


def fused(*steps: Step) -> Op:
    return Op(FUSED, lambda _: steps)


def shape(tokens: int) -> Shape:
    return FUSED.spec.shape({"num_tokens": tokens, **SIZES})


def tally(report: WarmupReport) -> list[tuple[Variant, int, bool]]:
    return [(each.variant, each.first_size, each.general) for each in report.binaries]


def test_it_compiles_every_key_that_is_reached_and_a_general_one(stub: StubDriver) -> None:
    op = fused(Step(1, PLAIN), Step(40, MARKED), Step(LARGEST + 1, FUSED.spec.baseline_variant))
    with tuner.jit_monitor() as monitor:
        report = op.warmup(max_num_tokens=LARGEST, **SIZES)
    reached = reachable_keys(FUSED, PLAIN, [shape(tokens) for tokens in range(1, 40)], DEFAULT_TARGET)
    assert len(reached) == 4
    expected = [(PLAIN, each.size("num_tokens"), False) for each in reached.values()]
    assert sorted(tally(report), key=str) == sorted(
        [*expected, (PLAIN, 1, True), (MARKED, 40, False), (MARKED, 40, True)], key=str
    )
    assert monitor.count == stub.loads == len(report.binaries) == op.counts["compiles"]
    assert all(each.seconds > 0 for each in report.binaries)
    text = str(report).splitlines()
    assert len(text) == 8
    assert "any call: per_head" in text[1]
    assert text[-1].endswith("7 binaries")


def test_nothing_is_left_to_compile(stub: StubDriver) -> None:
    op = fused(Step(1, PLAIN), Step(40, MARKED))
    op.warmup(max_num_tokens=LARGEST, **SIZES)
    drawn = random.Random(0)
    with tuner.jit_monitor("error") as monitor:
        for tokens in [*range(1, LARGEST + 1), *drawn.choices(range(LARGEST, 5000), k=20)]:
            inputs = zeros(tokens)
            for name in drawn.choices([None, "o", "positions", "cos_sin_cache"], k=2):
                if name is not None:  # a pointer that is no multiple of 16
                    buffer = torch.zeros(inputs[name].numel() + 1, dtype=inputs[name].dtype)
                    inputs[name] = buffer[1:].view(inputs[name].shape)
                positional, keywords = arguments_of(FUSED.name, inputs, shape(tokens))
                op(*positional, **keywords)
    assert monitor.count == 0
    assert len(stub.launches) == 2 * (LARGEST + 20)
    assert op.counts["fallbacks"] > 0
    assert op.warmup(max_num_tokens=LARGEST, **SIZES).binaries == ()


def test_other_strides_are_other_binaries(stub: StubDriver) -> None:
    op = fused(Step(1, MARKED))
    report = op.warmup(max_num_tokens=8, strides={"o_stride_token": 515 * 8}, **SIZES)
    assert tally(report) == [(MARKED, 1, False), (MARKED, 1, True)]
    with tuner.jit_monitor("error"):
        op(*arguments_of(FUSED.name, wide(515 * 8), shape(4))[0])
    assert stub.launches[-1].classes["o_stride_token"] == "i32"
    assert op.counts["fallbacks"] == 0


def test_past_its_bound_nothing_is_compiled_either(stub: StubDriver) -> None:
    op = fused(Step(1, PLAIN))
    op.warmup(max_num_tokens=3, **SIZES)
    with tuner.jit_monitor("error"):
        op(*arguments_of(FUSED.name, zeros(64), shape(64))[0])
    assert op.counts["fallbacks"] == 1


def zeros(tokens: int) -> dict[str, torch.Tensor]:
    o = torch.zeros(tokens, 8, 512, dtype=torch.bfloat16)
    return {"o": o, "positions": torch.zeros(tokens, dtype=torch.int64), "cos_sin_cache": torch.zeros(8, 64)}


def wide(stride: int) -> dict[str, torch.Tensor]:
    inputs = zeros(4)
    inputs["o"] = torch.zeros(5 * stride, dtype=torch.bfloat16).as_strided((4, 8, 512), (stride, 512, 1))
    return inputs


def test_sizes_past_32_bits_have_binaries_of_their_own(stub: StubDriver) -> None:
    """With 64-bit strides general binaries differ as well."""
    op = fused(Step(1, MARKED))
    report = op.warmup(max_num_tokens=1, strides={"fp8_stride_group": 2**31}, **SIZES)
    again = op.warmup(max_num_tokens=1, **SIZES)
    assert tally(report) == tally(again) == [(MARKED, 1, False), (MARKED, 1, True)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_num_tokens": 0, **SIZES}, "max_num_tokens is 0"),
        ({"max_num_tokens": 8, "n_groups": 2}, "'num_heads' has no value"),
        ({"max_num_tokens": 8, **SIZES, "heads": 3}, "'heads'"),
        ({"max_num_tokens": 8, **SIZES, "num_tokens": 3}, "num_tokens is the dimension that changes"),
        ({"max_num_tokens": 8, **SIZES, "strides": {"o_stride": 3}}, "did you mean 'o_stride_"),
        ({"max_num_tokens": 8, **SIZES, "device": "cuda"}, "expected a device of type 'cpu'"),
        ({"max_num_tokens": 8, "num_heads": 8, "n_groups": 3}, "not a multiple of n_groups=3"),
    ],
)
def test_what_cannot_be_warmed_up_is_told(arguments: dict[str, object], message: str, stub: StubDriver) -> None:
    with pytest.raises((UserError, UnknownNameError), match=message):
        fused(Step(1, MARKED)).warmup(**arguments)  # type: ignore[arg-type]
    assert stub.loads == 0


def test_collections_go_on_after_it(stub: StubDriver) -> None:
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            fused(Step(1, MARKED)).warmup(max_num_tokens=1, **SIZES)
            assert gc.isenabled() == enabled
        finally:
            gc.enable()


def test_the_first_of_two_to_end_lets_no_collection_into_the_other() -> None:
    both, one = threading.Event(), threading.Event()

    def short(_: int) -> bool:
        return both.wait(10)

    def long(_: int) -> bool:
        both.set()
        assert first.result(10) == [True]
        return gc.isenabled()

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(in_threads, lambda each: (one.set(), short(each))[1], [0])
        assert one.wait(10)
        assert in_threads(long, [0]) == [sys.version_info >= (3, 12)]
    assert gc.isenabled()


BASELINE = "fused_inv_rope_fp8_quant_per_head_kernel"


def broken(monkeypatch: pytest.MonkeyPatch, *, general: bool | None = None) -> None:
    """Let no binary of MARKED be compiled, or only (not) the general one."""
    compiled = Launcher._compiled

    def compile_or_fail(self: Launcher, key: Key, numbers: Sequence[Any]) -> Any:
        if self.variant == MARKED and general in (None, not key.aligned):
            raise RuntimeError("out of registers")
        return compiled(self, key, numbers)

    monkeypatch.setattr(Launcher, "_compiled", compile_or_fail)


@pytest.mark.parametrize("general", [None, True, False])
def test_where_a_variant_cannot_be_loaded_the_baseline_is_warmed_up(
    general: bool | None, stub: StubDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(monkeypatch, general=general)
    op, baseline = fused(Step(1, PLAIN), Step(40, MARKED)), FUSED.spec.baseline_variant
    report = op.warmup(max_num_tokens=LARGEST, **SIZES)
    assert {(PLAIN, 1, False), (PLAIN, 1, True), (baseline, 40, False), (baseline, 40, True)} <= {*tally(report)}
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{FUSED.name}: {TILE.label} cannot be compiled or loaded, and the baseline runs instead: "
        "RuntimeError: out of registers"
    )
    with tuner.jit_monitor("error"):
        for tokens in range(1, LARGEST + 1):
            op(*arguments_of(FUSED.name, zeros(tokens), shape(tokens))[0])
            launched = stub.launches[-1]
            assert launched.source.name == BASELINE
            assert launched.grid == (-(-tokens // 4) * 4, 8, 1)
        assert op.warmup(max_num_tokens=LARGEST, **SIZES).binaries == ()
    assert len(caplog.records) == 1


def test_without_a_warm_up_the_call_runs_on_the_baseline(
    stub: StubDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(monkeypatch)
    op = fused(Step(1, MARKED))
    for tokens in (4, 4, 5):
        op(*arguments_of(FUSED.name, zeros(tokens), shape(tokens))[0])
    assert [each.source.name for each in stub.launches] == [BASELINE] * 3
    assert [each.grid for each in stub.launches] == [(4, 8, 1), (4, 8, 1), (8, 8, 1)]
    assert len(caplog.records) == 1


def test_what_is_no_winner_or_strict_is_told(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    fused(Step(1, FUSED.spec.baseline_variant)).warmup(max_num_tokens=1, num_heads=6, n_groups=2)
    with tuner.jit_monitor("error"), pytest.raises(UserError, match="refused here"):
        fused(Step(1, MARKED)).warmup(max_num_tokens=1, num_heads=6, n_groups=2)
    broken(monkeypatch)
    monkeypatch.setenv("TUNER_STRICT", "1")
    with pytest.raises(RuntimeError, match="out of registers"):
        fused(Step(1, MARKED)).warmup(max_num_tokens=1, **SIZES)
    monkeypatch.delenv("TUNER_STRICT")
    monkeypatch.setattr(Launcher, "_compiled", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # the baseline's own
        fused(Step(1, MARKED)).warmup(max_num_tokens=1, **SIZES)
