"""The JIT monitor: every compile is counted, named and explained, or refused; hooks of others stay."""

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import counted_kernel
import pytest
import torch
import triton
from stub_driver import StubDriver, stub_driver
from triton import knobs
from triton.backends.compiler import GPUTarget

import tuner
from tuner.errors import UnknownNameError, UserError

pytestmark = pytest.mark.triton

X = torch.zeros(64)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubDriver]:
    """A driver without a GPU, an empty cache on disk and a kernel without binaries."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    importlib.reload(counted_kernel)
    with stub_driver() as active:
        yield active


def run(x: torch.Tensor = X, step: int = 16, block: int = 16, **options: Any) -> None:
    counted_kernel.spread[(1,)](x, step, block, **options)


def test_each_compile_is_named_and_explained(stub: StubDriver) -> None:
    run()
    with tuner.jit_monitor() as monitor:
        run()
        run(step=17)
        run(step=33)
        run(step=1)
        run(X[1:])
        run(step=2**40)
        run(X.half())
        run(block=32)
        run(num_warps=2)
        run(num_warps=2)
    causes = [each.cause for each in monitor.compiles]
    mark = "mark 'step' in do_not_specialize, unless wide loads or stores need it"
    assert causes == [
        f"step was i32, divisible by 16 and is i32: {mark}",
        f"step was i32 and is = 1: {mark}",
        "x_ptr was *fp32, divisible by 16 and is *fp32: pass pointers that are multiples of 16, or compile both ahead",
        "step was = 1 and is i64, divisible by 16: "
        "no mark keeps 64-bit numbers from compiling anew; compile both ahead",
        "x_ptr was *fp32 and is *fp16, divisible by 16: each type compiles anew; compile it ahead",
        "BLOCK was = 16 and is = 32: "
        "each value of a tl.constexpr compiles anew; make it a run-time argument if it changes while serving",
        "the same classes, but other options, another target or device",
    ]
    assert {each.kernel for each in monitor.compiles} == {"counted_kernel.spread"}
    assert all(each.seconds and not each.from_cache for each in monitor.compiles)
    assert monitor.compiles[0].changes[0].argument == "step"
    assert str(monitor).startswith("7 compiles\ncounted_kernel.spread, compiled in ")
    assert len(stub.launches) == 11


def test_a_first_binary_is_told_and_one_from_the_cache_too(stub: StubDriver) -> None:
    with tuner.jit_monitor() as monitor:
        run()
        importlib.reload(counted_kernel)  # the binary is on disk, but no longer in memory
        run()
    assert [(each.cause, each.from_cache) for each in monitor.compiles] == [
        ("its first binary", False),
        ("its first binary", True),
    ]
    assert "loaded from Triton's cache" in str(monitor.compiles[1])


def test_a_direct_compile_counts_too(stub: StubDriver) -> None:
    source = triton.compiler.ASTSource(
        counted_kernel.spread, {"x_ptr": "*fp32", "step": "i32", "BLOCK": "constexpr"}, {(2,): 16}
    )
    with tuner.jit_monitor() as monitor:
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert [each.kernel for each in monitor.compiles] == ["counted_kernel.spread"]
    assert monitor.compiles[0].classes["step"].label == "i32"


def test_warnings_say_what_was_compiled(stub: StubDriver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tuner"), tuner.jit_monitor("warn"):
        run()
    assert [each.getMessage().partition(" in ")[0] for each in caplog.records] == [
        "Triton: counted_kernel.spread, compiled"
    ]


def test_frozen_it_refuses_before_the_compile(stub: StubDriver) -> None:
    run()
    with tuner.jit_monitor("error") as monitor:
        for _ in range(2):
            with pytest.raises(UserError, match="about to compile, which is refused here: step was"):
                run(step=17)
        run(step=32)
    assert (monitor.count, len(stub.launches)) == (2, 2)
    assert "refused: step was i32, divisible by 16 and is i32" in str(monitor.compiles[0])
    run(step=17)
    assert len(stub.launches) == 3


def test_hooks_of_others_are_called_and_come_back(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(knobs.compilation, "listener", lambda **_: heard.append("compiled"), raising=False)
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda **_: heard.append("asked"), raising=False)
    before = knobs.compilation.listener, knobs.runtime.jit_cache_hook
    with tuner.jit_monitor() as outer:
        with tuner.jit_monitor() as inner:
            run()
        run(step=17)
    assert heard == ["asked", "compiled"] * 2
    assert (knobs.compilation.listener, knobs.runtime.jit_cache_hook) == before
    assert (outer.count, inner.count) == (2, 1)


def test_monitors_may_end_in_any_order(stub: StubDriver) -> None:
    before = knobs.compilation.listener, knobs.runtime.jit_cache_hook
    first, second = tuner.jit_monitor(), tuner.jit_monitor("error")
    counted, refusing = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(UserError):
        run()
    second.__exit__(None, None, None)
    assert (counted.count, refusing.count) == (0, 1)
    assert (knobs.compilation.listener, knobs.runtime.jit_cache_hook) == before


def test_a_hook_that_came_later_stays(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs.compilation, "listener", None, raising=False)
    heard: list[str] = []
    with tuner.jit_monitor() as monitor:
        ours = knobs.compilation.listener

        def later(**event: Any) -> None:
            heard.append("later")
            ours(**event)

        knobs.compilation.listener = later
        run()
    assert knobs.compilation.listener is later
    run(step=17)
    assert (heard, monitor.count) == (["later", "later"], 1)


def test_an_unknown_answer_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'warn'"), tuner.jit_monitor("warning"):
        pass
