"""The launcher: every call runs on a binary that Triton itself would take, or on a more general one."""

import gc
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import SCALE_ROWS, copy_kernel, scale_rows_variant
from stub_driver import StubDriver, stub_driver
from triton import knobs

from tuner.catalog import load_folder, load_kernel
from tuner.compile.module import load_variant
from tuner.compile.specialization import bind, meta_launch, specialize
from tuner.errors import UserError
from tuner.processes import WorkerPool, result
from tuner.records import SpecializationSet, Target, Variant
from tuner.runtime import launcher as module
from tuner.runtime.binaries import Arguments, Key
from tuner.runtime.launcher import Launcher, on_device

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("caches")]

CUDA = Target("cuda", "90")
FUSED, SCALE = load_kernel("fused_inv_rope_fp8_quant"), load_folder(SCALE_ROWS)
SHAPE = FUSED.spec.shape({"num_tokens": 16, "num_heads": 64, "n_groups": 8})
NAMES = ("x_ptr", "y_ptr", "num_rows", "row_stride")
INTEGERS = st.sampled_from([1, 2, 15, 16, 17, 48, 4096, 2**31 - 16, 2**31 - 1, 2**31, 2**31 + 1, 2**40, 0, -1, -16])
BUFFER = torch.zeros(4096, dtype=torch.bfloat16)


def scale_launcher(variant: Variant) -> Launcher:
    shape = SCALE.spec.shape({"num_rows": 16})
    example = meta_launch(SCALE, variant, shape).arguments
    return Launcher(SCALE, variant, Arguments.split(NAMES, example), lambda rows: (rows, 2, 3), -1)


def fused_launcher(*marks: str, on_alignment: tuple[str, ...] = ()) -> Launcher:
    variant = Variant(FUSED.name, FUSED.spec.baseline, SpecializationSet.of(marks, on_alignment))
    example = meta_launch(FUSED, variant, SHAPE).arguments
    return Launcher(FUSED, variant, Arguments.split(FUSED.host_function.arguments, example), lambda _: (1, 1, 1), -1)


def call(found: Launcher, rows: int, stride: int, x: int = 0, y: int = 0) -> None:
    found.launch(rows, BUFFER[x:], BUFFER[2048 + y :], rows, stride)


@pytest.mark.parametrize(
    ("marks", "on_alignment"),
    [
        ((), ()),
        (("num_tokens",), ()),
        (("num_tokens", "scale_stride_block"), ("o_stride_token", "fp8_stride_group")),
        ((), ("num_tokens", "scale_stride_block")),
    ],
)
def test_keys_differ_exactly_where_tritons_do(
    marks: tuple[str, ...], on_alignment: tuple[str, ...], stub: StubDriver
) -> None:
    found = fused_launcher(*marks, on_alignment=on_alignment)
    loaded, names = load_variant(FUSED, found.variant), FUSED.host_function.arguments
    example = meta_launch(FUSED, found.variant, SHAPE).arguments
    tensors = tuple(example[name] for name in names[:5])

    def keys(numbers: list[int]) -> tuple[Key, Any]:
        arguments = {**example, **dict(zip(names[5:], numbers, strict=True))}
        return found.calls.key(*tensors, *numbers), list(specialize(loaded, arguments, CUDA))

    @settings(max_examples=150, deadline=None)
    @given(numbers=st.lists(INTEGERS, min_size=8, max_size=8), place=st.integers(0, 7), other=INTEGERS)
    def compare(numbers: list[int], place: int, other: int) -> None:
        ours, tritons = keys(numbers)
        our_other, tritons_other = keys([*numbers[:place], other, *numbers[place + 1 :]])
        assert (ours == our_other) == (tritons == tritons_other)

    compare()


@pytest.mark.parametrize(
    "variant",
    [scale_rows_variant(), scale_rows_variant(marks=("num_rows",)), scale_rows_variant(on_alignment=("num_rows",))],
    ids=["plain", "marked", "marked on alignment"],
)
def test_aligned_calls_run_on_the_binary_that_triton_would_take(variant: Variant, stub: StubDriver) -> None:
    found, loaded = scale_launcher(variant), load_variant(SCALE, variant)
    calls = [
        (16, 128),
        (16, 128),
        (32, 64),
        (7, 128),
        (8, 128),
        (16, 8),
        (1, 128),
        (16, 3),
        (48, 2**31),
        (2**31, 16),
        (16, 128),
    ]
    for rows, stride in calls:
        call(found, rows, stride)
        launched = stub.launches[-1]
        x, y = BUFFER, BUFFER[2048:]
        arguments = {"x_ptr": x, "y_ptr": y, "num_rows": rows, "row_stride": stride, "COLUMNS": 128}
        bound = bind(loaded, arguments, CUDA)
        assert launched.source.signature == bound.signature
        assert launched.source.constants == bound.constexprs
        assert launched.source.attrs == bound.attributes
        assert launched.arguments == (x.data_ptr(), y.data_ptr(), rows, stride, 128)
        assert (launched.grid, launched.stream, launched.hooks) == ((rows, 2, 3), stub.stream, (None, None))
    assert found.compiles == stub.loads < len(calls)
    assert found.fallbacks == 0


def test_the_usual_call_asks_for_no_key(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scale_launcher(scale_rows_variant(marks=("num_rows",)))
    call(found, 16, 128)
    monkeypatch.setattr(found.calls, "key", None)
    call(found, 7, 128)
    assert stub.launches[-1].arguments[2] == 7
    with pytest.raises(TypeError):
        call(found, 7, 127)


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 1), (3, 4), (4, 0)])
def test_unaligned_pointers_run_on_a_binary_that_assumes_nothing(x: int, y: int, stub: StubDriver) -> None:
    found = scale_launcher(scale_rows_variant())
    call(found, 16, 128)
    call(found, 16, 128, x, y)
    assert stub.launches[-1].classes == {
        "x_ptr": "*bf16", "y_ptr": "*bf16", "num_rows": "i32", "row_stride": "i32", "COLUMNS": "constexpr"
    }  # fmt: skip
    assert stub.launches[-1].arguments[:2] == (BUFFER[x:].data_ptr(), BUFFER[2048 + y :].data_ptr())
    call(found, 1, 1, x, y)
    assert found.compiles == 2
    assert found.fallbacks == 1


@pytest.mark.parametrize("names", [("y", "z", "size"), ("general", "hooked", "run"), ("a3", "a2", "a0")])
def test_arguments_may_have_any_names(
    names: tuple[str, str, str], stub: StubDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path)
    kernel, spec = folder / "kernel.py", folder / "spec.py"
    for before, after in zip(("num_rows", "row_stride", "COLUMNS"), names, strict=True):
        kernel.write_text(re.sub(rf"\b{before}\b", after, kernel.read_text()))
        spec.write_text(spec.read_text().replace(f'"{before}":', f'"{after}":'))
    renamed, variant = load_folder(folder), scale_rows_variant()
    example = meta_launch(renamed, variant, renamed.spec.shape({"num_rows": 16})).arguments
    arguments = Arguments.split(("x_ptr", "y_ptr", *names[:2]), example)
    found = Launcher(renamed, variant, arguments, lambda rows: (rows, 2, 3), -1)
    call(found, 16, 128)
    monkeypatch.setattr(found.calls, "key", None)  # the usual call asks for none
    call(found, 48, 64)
    assert [each.arguments[2:] for each in stub.launches] == [(16, 128, 128), (48, 64, 128)]
    assert stub.launches[-1].grid == (48, 2, 3)


def test_an_unaligned_call_keeps_no_aligned_one_from_its_own_binary(stub: StubDriver) -> None:
    found = scale_launcher(scale_rows_variant())
    call(found, 16, 128, x=1)
    call(found, 16, 128)
    assert stub.launches[-1].classes["x_ptr"] == "*bf16*"
    assert (found.compiles, found.fallbacks) == (2, 0)


def test_after_a_warm_up_the_general_binary_serves_what_was_not_compiled(stub: StubDriver) -> None:
    found = scale_launcher(scale_rows_variant())
    call(found, 16, 128, x=1)
    found.warm = True
    call(found, 7, 1)
    assert stub.launches[-1].classes["row_stride"] == "i32"
    assert (found.compiles, found.fallbacks) == (1, 1)
    call(found, 2**31, 1)  # of another type
    assert stub.launches[-1].classes["num_rows"] == "i64*"
    assert (found.compiles, found.fallbacks) == (2, 1)


def test_nothing_is_compiled_during_a_capture(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scale_launcher(scale_rows_variant())
    call(found, 16, 128)
    monkeypatch.setattr(module, "_capturing", lambda: True)
    call(found, 32, 128)
    with pytest.raises(UserError, match="graph capture") as caught:
        call(found, 7, 128)
    assert "op.warmup" in caught.value.hint
    assert len(stub.launches) == 2


def test_a_capture_takes_the_general_binary_where_there_is_one(
    stub: StubDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scale_launcher(scale_rows_variant())
    call(found, 16, 128, x=1)
    monkeypatch.setattr(module, "_capturing", lambda: True)
    call(found, 16, 128)
    assert stub.launches[-1].classes["x_ptr"] == "*bf16"
    assert (found.compiles, found.fallbacks) == (1, 1)


def test_launch_hooks_are_called_while_they_are_set(stub: StubDriver) -> None:
    found, heard = scale_launcher(scale_rows_variant()), []
    call(found, 16, 128)
    enter = knobs.runtime.launch_enter_hook
    hook = heard.append
    enter.add(hook)
    try:
        call(found, 16, 128)
    finally:
        enter.remove(hook)
    call(found, 16, 128)
    assert [each.get()["name"] for each in heard] == ["scale_rows_kernel"]
    assert [each.hooks[0] for each in stub.launches] == [None, enter, None]


def test_the_stream_is_looked_up_at_each_call(stub: StubDriver) -> None:
    found = scale_launcher(scale_rows_variant())
    for stream in (1, 2, 3):
        stub.stream = stream
        call(found, 16, 128)
    assert [each.stream for each in stub.launches] == [1, 2, 3]


def test_threads_that_need_the_same_binary_compile_it_once(stub: StubDriver) -> None:
    found = scale_launcher(scale_rows_variant(block_rows=2))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda rows: call(found, 16 * rows, 128), range(1, 9)))
    assert sorted(each.arguments[2] for each in stub.launches) == [16 * rows for rows in range(1, 9)]
    assert found.compiles == 1


def test_a_warm_up_and_a_call_compile_a_binary_once(stub: StubDriver) -> None:
    found = scale_launcher(scale_rows_variant(block_rows=4))
    values = (BUFFER, BUFFER[2048:], 16, 128)
    key = found.calls.key(*values)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda loads: found.load(key, *values) if loads else call(found, 16, 128), (1, 0, 1, 1)))
    assert (found.compiles, stub.loads) == (1, 1)


@pytest.mark.parametrize("fails", [True, False])
def test_what_another_thread_gave_up_meanwhile_stays_so(
    fails: bool, stub: StubDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The general binary cannot be loaded while the usual one is compiled, which then can or cannot."""
    found, baseline = scale_launcher(scale_rows_variant(block_rows=2)), scale_launcher(scale_rows_variant())
    compiled = found._compiled

    def compile_or_fail(key: Key, numbers: Sequence[Any]) -> Any:
        if key.aligned:
            found.load(key.general, BUFFER, BUFFER[2048:], 16, 128)
        if fails or not key.aligned:
            raise RuntimeError("no registers are left")
        return compiled(key, numbers)

    monkeypatch.setattr(found, "_compiled", compile_or_fail)
    monkeypatch.setattr(found, "_baseline", lambda: baseline)
    call(found, 16, 128)
    call(found, 32, 128)
    assert len(stub.launches) == 2
    assert stub.launches[-1].source.fn is next(iter(baseline._binaries.values())).src.fn
    assert len(caplog.records) == 1


def test_a_call_that_compiles_collects_no_garbage(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Python 3.11, whose parser does not stand it in threads."""
    found, collects = scale_launcher(scale_rows_variant()), []
    compiled = found._compiled
    monkeypatch.setattr(found, "_compiled", lambda *given: (collects.append(gc.isenabled()), compiled(*given))[1])
    call(found, 16, 128)
    assert collects == [sys.version_info >= (3, 12)]
    assert gc.isenabled()


def test_a_device_is_current_for_a_while(stub: StubDriver) -> None:
    with pytest.raises(KeyError), on_device(3):
        assert stub.device == 3
        raise KeyError
    assert stub.device == -1


def launch_on_amd() -> tuple[list[bool], int]:
    """Whether each of four launches was compiled for tensors below 2 GiB, and the number of compiles."""
    small, large = (torch.empty(size, dtype=torch.bfloat16, device="meta") for size in (2**30 - 1, 2**30))
    with stub_driver("hip", "gfx942", 64) as stub:
        found = scale_launcher(scale_rows_variant())
        for x, y in ((small, small), (small, large), (large, large), (small, small)):
            found.launch(16, x, y, 16, 128)
        return ["tt.pointer_range" in dict(each.source.attrs[0,]) for each in stub.launches], found.compiles


def test_large_tensors_have_a_binary_of_their_own_on_amd(caches: Path) -> None:
    with WorkerPool(1) as pool:  # Triton's binder remembers the first backend of a process
        assert result(pool.submit(launch_on_amd, timeout_s=120.0)) == ([True, False, False, True], 2)


def test_arguments_that_the_kernel_has_not_are_an_error() -> None:
    example = meta_launch(SCALE, scale_rows_variant(), SCALE.spec.shape({"num_rows": 16})).arguments
    for names in (("y_ptr", "x_ptr", "num_rows"), ("x_ptr", "num_rows"), ("x_ptr", "y_ptr", "rows")):
        with pytest.raises(UserError, match=r"op\.py passes"):
            Arguments.split(names, example)
