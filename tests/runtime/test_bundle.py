"""Bundles: what a warm-up would compile is loaded instead, and nothing that does not fit is."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from bundle_examples import FUSED, LARGEST, PLAIN, SIZES, TILE, small_bundle
from op_examples import arguments_of
from stub_driver import StubDriver, stub_driver
from triton.backends.compiler import GPUTarget

import tuner
from tuner import serving
from tuner.errors import UserError
from tuner.records import Shape, Target
from tuner.runtime.bundle import MANIFEST, Bundle, Refusal, Refused, identity, read_bundle
from tuner.runtime.op import Op
from tuner.runtime.steps import Step

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("caches")]

STEPS = (Step(1, PLAIN), Step(40, TILE))
PLACE = FUSED.name


@pytest.fixture(scope="module")
def built(caches: Path) -> Bundle:
    return small_bundle(caches / "bundles")


@pytest.fixture
def folder(built: Bundle, tmp_path: Path) -> Path:
    """A copy of the folder of bundles."""
    shutil.copytree(built.folder.parent, tmp_path / "bundles")
    return tmp_path / "bundles"


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    folders = tmp_path / "empty_tuner", tmp_path / "empty_triton"
    monkeypatch.setenv("TUNER_CACHE", str(folders[0]))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folders[1]))
    return folders


def read(folder: Path) -> Bundle | Refused:
    return read_bundle(folder, FUSED.name, FUSED.source_digest, triton.__version__)


def op_of(folder: Path) -> Op:
    return Op(FUSED, lambda _: STEPS, read(folder))


def call(op: Op, tokens: int, offset: int = 0) -> None:
    shape = FUSED.spec.shape({"num_tokens": tokens, **SIZES})
    inputs = dict(FUSED.spec.make_inputs(shape, "cpu", 0))
    inputs["o"] = torch.zeros(tokens * 4096 + offset, dtype=torch.bfloat16)[offset:].view(tokens, 8, 512)
    positional, keywords = arguments_of(FUSED.name, inputs, shape)
    op(*positional, **keywords)


def test_it_holds_what_a_warm_up_compiles(built: Bundle, stub: StubDriver) -> None:
    op = Op(FUSED, lambda _: STEPS)
    report = op.warmup(max_num_tokens=LARGEST, **SIZES)
    launchers = op.plans.of(None, SIZES).launchers
    assert {each.calls.identity(key) for each in launchers for key in each._binaries} == built.binaries.keys()  # type: ignore[union-attr]
    assert len(built.binaries) == len(report.binaries) > 4
    (steps,) = built.steps.values()
    assert steps[:2] == STEPS


def test_it_comes_back_from_its_files(built: Bundle, folder: Path) -> None:
    found = read(folder)
    assert isinstance(found, Bundle), found
    assert found == replace(built, folder=folder / PLACE)
    assert {path.name: path.read_bytes() for path in (folder / PLACE).iterdir()} == built.files


def test_nothing_is_compiled_or_emitted(folder: Path, stub: StubDriver, empty_caches: tuple[Path, Path]) -> None:
    op = op_of(folder)
    shutil.rmtree(folder)  # it may go once it is read
    with tuner.jit_monitor("error") as monitor:
        report = op.warmup(max_num_tokens=LARGEST, **SIZES)
        for tokens in range(1, LARGEST + 1):
            call(op, tokens)
            call(op, tokens, offset=1)
    assert monitor.count == 0
    assert op.counts == {"compiles": 0, "prebuilt": len(report.binaries), "fallbacks": LARGEST}
    assert all(each.prebuilt for each in report.binaries)
    assert str(report).count("; prebuilt") == len(report.binaries)
    assert len(stub.launches) == 2 * LARGEST
    assert not any(each.exists() for each in empty_caches)


def test_launches_are_those_of_compiled_binaries(folder: Path, stub: StubDriver) -> None:
    ops = op_of(folder), Op(FUSED, lambda _: STEPS)
    for tokens, offset in ((1, 0), (4, 0), (5, 0), (16, 0), (7, 1), (48, 0), (49, 0), (50, 1)):
        for op in ops:
            call(op, tokens, offset)
        ours, compiled = stub.launches[-2:]
        assert ours.source.signature == compiled.source.signature
        assert ours.source.constants == compiled.source.constants
        assert ours.source.attrs == compiled.source.attrs
        assert ours.source.fn.arg_names == compiled.source.fn.arg_names
        places = [index for index, kind in enumerate(ours.source.signature.values()) if not kind.startswith("*")]
        assert [ours.arguments[each] for each in places] == [compiled.arguments[each] for each in places]
        assert (ours.grid, ours.classes) == (compiled.grid, compiled.classes)
        for name in ("name", "shared", "num_warps", "target", "triton_version"):
            assert getattr(ours.metadata, name) == getattr(compiled.metadata, name)
    assert ops[0].counts["compiles"] == 0 < ops[0].counts["prebuilt"]


def test_a_launch_hook_hears_of_them(folder: Path, stub: StubDriver) -> None:
    op, heard = op_of(folder), []
    hook = heard.append
    triton.knobs.runtime.launch_enter_hook.add(hook)
    try:
        call(op, 4)
    finally:
        triton.knobs.runtime.launch_enter_hook.remove(hook)
    assert [each.get()["name"] for each in heard] == ["fused_inv_rope_fp8_quant_per_head_kernel"]


def test_what_it_does_not_hold_is_compiled(folder: Path, stub: StubDriver) -> None:
    op = op_of(folder)
    report = op.warmup(max_num_tokens=3, num_heads=16, n_groups=2)
    assert [each.prebuilt for each in report.binaries] == [False] * len(report.binaries)
    assert op.warmup(max_num_tokens=3, strides={"o_stride_token": 4099}, **SIZES).binaries[0].prebuilt is False
    assert isinstance(op.bundle, Bundle)


def test_its_variants_run_whatever_the_tables_say(folder: Path, stub: StubDriver) -> None:
    def refuse(_: Shape) -> tuple[Step, ...]:
        raise AssertionError("the tables were asked")

    plan = Op(FUSED, refuse, read(folder)).plans.of(None, SIZES)
    assert [plan.launcher(size).variant for size in (1, 39, 40, 100)] == [PLAIN, PLAIN, TILE, TILE]
    with pytest.raises(AssertionError, match="asked"):
        Op(FUSED, refuse, read(folder)).plans.of(None, {**SIZES, "tma_aligned_scales": 1})


def edited(change: Callable[[dict[str, Any]], Any], seal: bool = True) -> Callable[[Path], Any]:
    def edit(place: Path) -> None:
        data = json.loads((place / MANIFEST).read_text())
        change(data)
        if seal:
            del data["sha256"]
            text = json.dumps(data, sort_keys=True, separators=(",", ":"))
            data["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        (place / MANIFEST).write_text(json.dumps(data))

    return edit


def binaries(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """Change every binary of the manifest."""
    return edited(lambda data: [change(each) for each in data["binaries"].values()])


def steps(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Path], Any]:
    """Change the steps of the manifest's plan."""
    return edited(lambda data: change(data["plans"][0]["steps"]))


def move(data: dict[str, Any]) -> None:
    data["binaries"] = {f"../{PLACE}/{name}": each for name, each in data["binaries"].items()}


CODE = "__import__('os').abort()"


def first(place: Path, suffix: str) -> Path:
    return min(path for path in place.glob(f"*.{suffix}") if path.name != MANIFEST)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


REFUSED: dict[str, tuple[Callable[[Path], Any], Refusal, str]] = {
    "no folder": (shutil.rmtree, Refusal.MISSING, "tuner prebuild fused_inv_rope_fp8_quant"),
    "cut manifest": (lambda place: cut(place / MANIFEST), Refusal.DAMAGED, "cannot be read"),
    "no manifest": (lambda place: (place / MANIFEST).write_text("[1]"), Refusal.DAMAGED, "is no manifest"),
    "schema": (edited(lambda data: data.update(schema=2)), Refusal.SCHEMA, "its schema is 2, here it is 1"),
    "kernel": (edited(lambda data: data.update(kernel="rope")), Refusal.KERNEL, "rope"),
    "source": (edited(lambda data: data.update(source_digest="0" * 16)), Refusal.SOURCE, "0000000000000000"),
    "triton": (edited(lambda data: data.update(triton="3.5.1")), Refusal.TRITON, "its Triton is 3.5.1, here it is 3."),
    "edited": (edited(lambda data: data["plans"].clear(), seal=False), Refusal.DAMAGED, "another digest"),
    "no plans": (edited(lambda data: data.pop("plans")), Refusal.DAMAGED, "KeyError: 'plans'"),
    "cut code": (lambda place: cut(first(place, "cubin")), Refusal.DAMAGED, "is not the file"),
    "flipped code": (lambda place: flip(first(place, "cubin")), Refusal.DAMAGED, ".cubin is not the file"),
    "flipped metadata": (lambda place: flip(first(place, "json")), Refusal.DAMAGED, ".json is not the file"),
    "tuner": (edited(lambda data: data.update(tuner="0" * 16)), Refusal.TUNER, "its tuner is 0000000000000000"),
    "deep": (lambda place: (place / MANIFEST).write_text("[" * 100_000), Refusal.DAMAGED, "cannot be read"),
    "name outside": (binaries(lambda each: each.update(name="../other")), Refusal.DAMAGED, "'../other' is no"),
    "suffix outside": (binaries(lambda each: each.update(code_suffix="/cubin")), Refusal.DAMAGED, "'/cubin' is no"),
    "read outside": (edited(move), Refusal.DAMAGED, f"'../{PLACE}/"),
    "code as a name": (binaries(lambda each: each["names"].append(CODE)), Refusal.DAMAGED, 'abort()" is no'),
    "code as a type": (binaries(lambda each: each["types"].append(CODE)), Refusal.DAMAGED, 'abort()" is no'),
    "a late start": (steps(lambda each: each[0].update(first=2)), Refusal.DAMAGED, "the first of them 1"),
    "no start": (steps(lambda each: each.clear()), Refusal.DAMAGED, "the first of them 1"),
    "a size in words": (steps(lambda each: each[1].update(first="40")), Refusal.DAMAGED, "expected whole numbers"),
    "a size twice": (steps(lambda each: each[1].update(first=1)), Refusal.DAMAGED, "each after the one before"),
    "another's variant": (
        steps(lambda each: each[0]["variant"].update(kernel="rms_norm")),
        Refusal.DAMAGED,
        "is no variant of",
    ),
    "a parameter in words": (
        steps(lambda each: each[1]["variant"]["parameters"].update(LOAD_STAGES="1")),
        Refusal.DAMAGED,
        "is no variant of",
    ),
    "implementation": (
        steps(lambda each: each[0]["variant"].update(implementation="gone")),
        Refusal.DAMAGED,
        "no implementation 'gone'",
    ),
    "parameter": (steps(lambda each: each[1]["variant"]["parameters"].update(MORE=1)), Refusal.DAMAGED, "'MORE'"),
    "no code": (lambda place: first(place, "cubin").unlink(), Refusal.DAMAGED, "FileNotFoundError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_compiled(
    name: str, folder: Path, stub: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    harm, why, detail = REFUSED[name]
    harm(folder / PLACE)
    with caplog.at_level(logging.WARNING, logger="tuner"):
        op = op_of(folder)
    assert isinstance(op.bundle, Refused), op.bundle
    assert op.bundle.why is why
    assert detail in op.bundle.detail
    report = op.warmup(max_num_tokens=1, **SIZES)
    assert [each.prebuilt for each in report.binaries] == [False, False]
    (record,) = caplog.records
    assert record.getMessage() == f"{op.bundle} Its binaries are compiled at warm-up."


def test_a_binary_with_other_arguments_is_compiled(folder: Path, stub: StubDriver) -> None:
    binaries(lambda each: each["names"].__setitem__(0, "other"))(folder / PLACE)
    op = op_of(folder)
    assert isinstance(op.bundle, Bundle)
    assert [each.prebuilt for each in op.warmup(max_num_tokens=1, **SIZES).binaries] == [False, False]
    call(op, 1)
    assert op.counts["prebuilt"] == 0


def test_another_gpu_is_told_when_it_is_first_seen(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    op = op_of(folder)
    assert isinstance(op.bundle, Bundle)
    with stub_driver(arch=100), caplog.at_level(logging.WARNING, logger="tuner"):
        assert not op.warmup(max_num_tokens=1, **SIZES).binaries[0].prebuilt
        op.warmup(max_num_tokens=1, num_heads=4, n_groups=2)
    assert isinstance(op.bundle, Refused)
    assert op.bundle.why is Refusal.TARGET
    assert op.bundle.detail == "it is for cuda:90, here is cuda:100"
    assert len(caplog.records) == 1


def test_load_op_takes_a_folder_or_the_variable(
    folder: Path, stub: StubDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serving.load_op.__wrapped__(FUSED.name).bundle is None
    assert isinstance(serving.load_op.__wrapped__(FUSED.name, bundle=folder).bundle, Bundle)
    monkeypatch.setenv("TUNER_BUNDLE", str(folder))
    op = serving.load_op.__wrapped__(FUSED.name)
    assert op.warmup(max_num_tokens=LARGEST, **SIZES).binaries[0].prebuilt
    other = serving.load_op.__wrapped__(FUSED.name, bundle=str(folder / "none"))
    assert isinstance(other.bundle, Refused)
    assert other.bundle.why is Refusal.MISSING


def test_an_identity_needs_plain_data() -> None:
    assert identity({"a": 1, "b": (2,)}) == identity({"b": [2], "a": 1}) != identity({"a": 2, "b": [2]})
    with pytest.raises(UserError, match="cannot be named in a bundle"):
        identity({"constant": object()})


def test_the_target_is_told_from_the_manifest(folder: Path) -> None:
    found = read(folder)
    assert isinstance(found, Bundle)
    assert (found.target, found.refused_on("cuda:90")) == (Target("cuda", "90"), None)


def test_a_bundle_is_for_the_gpu_of_the_plan(folder: Path, stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub, "get_current_target", lambda: GPUTarget("cuda", 90 if stub.device == 1 else 80, 32))
    op = op_of(folder)
    op.plans.of(torch.device("cpu", 1), SIZES)
    assert isinstance(op.bundle, Bundle)
    op.plans.of(torch.device("cpu", 0), SIZES)
    assert isinstance(op.bundle, Refused)


@pytest.mark.parametrize("name", ["no folder", "triton", "no code"])
def test_a_strict_server_does_not_start_without_its_bundle(
    name: str, folder: Path, stub: StubDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STRICT", "1")
    assert op_of(folder).warmup(max_num_tokens=1, **SIZES).binaries[0].prebuilt
    harm, why, _ = REFUSED[name]
    harm(folder / PLACE)
    with pytest.raises(UserError, match=rf"is refused \({why}\)") as caught:
        op_of(folder)
    assert "unset TUNER_STRICT" in caught.value.hint


def test_a_strict_server_refuses_another_gpu_at_each_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_STRICT", "1")
    op = op_of(folder)
    with stub_driver(arch=100) as stub:
        for _ in range(2):
            with pytest.raises(UserError, match="it is for cuda:90, here is cuda:100"):
                op.warmup(max_num_tokens=1, **SIZES)
        assert stub.loads == 0


def test_what_no_winner_stands_behind_is_so_from_its_files(folder: Path, stub: StubDriver, monkeypatch: Any) -> None:
    monkeypatch.setenv("TUNER_STRICT", "1")
    op = op_of(folder)
    call(op, 128)  # twice the largest tuned size
    with pytest.raises(UserError, match="has no winner at num_tokens=129"):
        call(op, 129)
