"""The op: the contract's outputs, clear errors, no graph break; bit for bit right in Triton's interpreter."""

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from op_examples import arguments_of, poisoned, storages
from stub_driver import StubDriver, stub_driver

from tuner import serving
from tuner.catalog import load_kernel
from tuner.errors import UnknownNameError, UserError
from tuner.processes import WorkerPool, result
from tuner.records import DEFAULT_TARGET, Config, FrozenMapping, Shape, Variant
from tuner.runtime import dispatch, find
from tuner.runtime.launcher import Launcher
from tuner.runtime.op import Op
from tuner.runtime.steps import Step
from tuner.verify.agreement import compare
from tuner.verify.interpreter import INTERPRETER_ENVIRONMENT, patch_conversions

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("caches")]

FUSED, NORM = load_kernel("fused_inv_rope_fp8_quant"), load_kernel("rms_norm")
FP8 = torch.float8_e4m3fn
# Large tiles: the interpreter's time is that of its programs.
INTERPRETED = {
    FUSED.name: Config(
        "tile", FrozenMapping(BLOCK_TOKENS=8, BLOCK_HEADS=4, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0)
    ),
    NORM.name: Config("tile", FrozenMapping(BLOCK_ROWS=4, BLOCK_COLUMNS=16384, ROW_TILES=1, LOAD_STAGES=1, STREAM=0)),
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubDriver]:
    with stub_driver() as active:
        yield active


def baseline(kernel: Any) -> Callable[[Shape], tuple[Step, ...]]:
    return lambda _: (Step(1, kernel.spec.baseline_variant),)


@pytest.fixture(scope="module")
def fused(stub: StubDriver) -> Op:
    return Op(FUSED, baseline(FUSED))


@pytest.fixture(scope="module")
def norm(stub: StubDriver) -> Op:
    return Op(NORM, baseline(NORM))


def inputs(tokens: int, heads: int = 8, dim: int = 512) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    o = torch.zeros(tokens, heads + 1, dim, dtype=torch.bfloat16)[:, :heads]
    return o, torch.zeros(tokens, dtype=torch.int64), torch.zeros(32, 64)


def test_the_signature_is_that_of_the_contract(fused: Op) -> None:
    parameters = inspect.signature(fused).parameters.values()
    assert [each.name for each in parameters] == [
        "o", "positions", "cos_sin_cache", "n_groups", "heads_per_group", "nope_dim", "rope_dim", "quant_group_size",
        "tma_aligned_scales", "scale_rounding", "rope_style",
    ]  # fmt: skip
    assert [each.default for each in parameters][5:] == [448, 64, 128, False, "pow2", "interleaved"]
    assert [each.name for each in parameters if each.kind is each.KEYWORD_ONLY] == ["scale_rounding", "rope_style"]
    assert fused.__name__ == "fused_inv_rope_fp8_quant"
    assert "UserError" in (fused.__doc__ or "")


@pytest.mark.parametrize("tokens", [0, 1, 3, 4, 8, 18])
@pytest.mark.parametrize("packed", [False, True])
def test_outputs_have_the_contracts_sizes_and_strides(tokens: int, packed: bool, fused: Op, stub: StubDriver) -> None:
    before = len(stub.launches)
    o_fp8, o_scale = fused(*inputs(tokens, heads=6), 2, 3, tma_aligned_scales=packed)
    width, rows, padded = 3 * 512, 3 if packed else 12, (tokens + 3) // 4 * 4
    assert (o_fp8.dtype, o_fp8.shape, o_fp8.stride()) == (FP8, (tokens, 2, width), (width, tokens * width, 1))
    scale_type = torch.int32 if packed else torch.float32
    assert (o_scale.dtype, o_scale.shape) == (scale_type, (tokens, 2, rows))
    assert o_scale.stride() == (1, rows * padded, padded)
    assert o_scale.untyped_storage().nbytes() == 4 * 2 * rows * padded
    assert o_fp8.untyped_storage().nbytes() == tokens * 2 * width
    assert len(stub.launches) == before + (tokens > 0)


def wrong(name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    o, positions, cache = inputs(4)
    return {
        "o 2d": ((o[0], positions, cache, 2, 4), {}),
        "cache 1d": ((o, positions, cache[0], 2, 4), {}),
        "o fp16": ((o.half(), positions, cache, 2, 4), {}),
        "positions float": ((o, positions.float(), cache, 2, 4), {}),
        "cache bf16": ((o, positions, cache.bfloat16(), 2, 4), {}),
        "cache on meta": ((o, positions, cache.to("meta"), 2, 4), {}),
        "heads": ((o, positions, cache, 2, 3), {}),
        "head size": ((o, positions, cache, 2, 4, 320), {}),
        "cache width": ((o, positions, cache[:, :32], 2, 4), {}),
        "block": ((o, positions, cache, 2, 4, 448, 64, 64), {}),
        "positions": ((o, positions[:3], cache, 2, 4), {}),
        "positions 2d": ((o, positions[:, None], cache, 2, 4), {}),
        "o step": ((torch.zeros(4, 512, 8).bfloat16().transpose(1, 2), positions, cache, 2, 4), {}),
        "cache step": ((o, positions, torch.zeros(64, 32).T, 2, 4), {}),
        "rounding": ((o, positions, cache, 2, 4), {"scale_rounding": "up"}),
        "packed": ((o, positions, cache, 2, 4), {"scale_rounding": "none", "tma_aligned_scales": True}),
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("o 2d", r"o has shape \[8, 512\].*expected \[T, H, D\]"),
        ("cache 1d", r"cos_sin_cache \[64\]"),
        ("o fp16", "o is torch.float16; expected torch.bfloat16"),
        ("positions float", "positions is torch.float32; expected torch.int64 or torch.int32"),
        ("cache bf16", "cos_sin_cache is torch.bfloat16; expected torch.float32"),
        ("cache on meta", "cos_sin_cache is on meta, but o is on cpu"),
        ("heads", "o has 8 heads, which does not go with n_groups=2, heads_per_group=3"),
        ("head size", "o has head size 512"),
        ("cache width", "cos_sin_cache has 32 columns"),
        ("block", "quant_group_size is 64; expected 128"),
        ("positions", r"positions has shape \[3\]; expected \[4\]"),
        ("positions 2d", r"positions has shape \[4, 1\]; expected \[4\]"),
        ("o step", r"o has strides .*; expected 1 in the last"),
        ("cache step", r"cos_sin_cache has strides"),
        ("rounding", "'scale_rounding' is 'up'; expected 'pow2' or 'none'"),
        ("packed", "packed scales hold exponents only"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_wrong_inputs_are_told_before_the_launch(name: str, message: str, known: bool, stub: StubDriver) -> None:
    """As the first call, and when calls like it had been right."""
    op = Op(FUSED, baseline(FUSED))
    if known:
        op(*inputs(4), 2, 4)
    positional, keywords = wrong(name)
    if known and name == "cache on meta":
        pytest.skip("without a GPU all devices have the number -1")
    before = len(stub.launches)
    with pytest.raises(UserError, match=message):
        op(*positional, **keywords)
    assert len(stub.launches) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, weight: (x[0], weight), r"x has shape \[2048\]"),
        (lambda x, weight: (x.float(), weight), "x is torch.float32"),
        (lambda x, weight: (x, weight.half()), "weight is torch.float16"),
        (lambda x, weight: (x, weight[None]), r"weight has shape \[1, 2048\]; expected \[2048\]"),
        (lambda x, weight: (x, weight[:16]), r"weight has shape \[16\]; expected \[2048\]"),
        (lambda x, weight: (x.T.contiguous().T, weight), "x has strides"),
        (lambda x, weight: (x, weight.repeat(2)[::2]), "weight has strides"),
        (lambda x, weight: (x[:, :2047], weight[:2047]), "'hidden_size' is 2047"),
    ],
)
def test_wrong_inputs_of_rms_norm_are_told(change: Any, message: str, norm: Op) -> None:
    x, weight = torch.zeros(3, 2048, dtype=torch.bfloat16), torch.zeros(2048, dtype=torch.bfloat16)
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            norm(*change(x, weight))
    y = norm(x, torch.nn.Parameter(weight))
    assert (y.shape, y.stride(), y.dtype) == ((3, 2048), (2048, 1), torch.bfloat16)


def test_positions_need_not_lie_in_one_piece(fused: Op, stub: StubDriver) -> None:
    o, _, cache = inputs(4)
    positions = torch.arange(8)[::2]
    fused(o, positions, cache, 2, 4)
    assert stub.launches[-1].arguments[1] != positions.data_ptr()
    fused(o, positions.contiguous(), cache, 2, 4)


def test_calls_of_other_sizes_come_in_any_order(stub: StubDriver) -> None:
    op = Op(FUSED, baseline(FUSED))
    for heads in (8, 4, 8, 8, 4):
        o_fp8, _ = op(*inputs(4, heads), 2, heads // 2)
        assert o_fp8.shape == (4, 2, heads // 2 * 512)
        assert stub.launches[-1].grid == (4, heads, 1)
    assert len(op.plans) == len(op.plans.launchers()) == 2


def test_the_number_of_rows_of_the_cache_is_no_part_of_a_plan(stub: StubDriver) -> None:
    op = Op(FUSED, baseline(FUSED))
    o, positions, cache = inputs(4)
    for rows in (32, 31, 8):
        op(o, positions, cache[:rows], 2, 4)
    assert len(op.plans) == 1


def test_it_takes_keywords_and_runs_in_inference_mode(fused: Op, stub: StubDriver) -> None:
    o, positions, cache = inputs(5)
    before = len(stub.launches)
    with torch.inference_mode():
        o_fp8, _ = fused(o=o, positions=positions, cos_sin_cache=cache, n_groups=2, heads_per_group=4)
        assert fused(o, positions, cache, 2, 4)[0].is_inference()
    assert o_fp8.shape == (5, 2, 2048)
    assert len(stub.launches) == before + 2


@pytest.mark.parametrize("dynamic", [True, False])
def test_it_is_one_node_of_a_full_graph(dynamic: bool, fused: Op, norm: Op, stub: StubDriver) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def model(o: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor, weight: torch.Tensor) -> Any:
        flat = norm(o.flatten(1), weight)
        return fused(flat.view(o.shape), positions, cache, 2, 4)

    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=backend)
    weight = torch.zeros(4096, dtype=torch.bfloat16)
    for tokens in (6, 9):
        before = len(stub.launches)
        o_fp8, o_scale = compiled(*inputs(tokens), weight)
        padded = (tokens + 3) // 4 * 4
        assert (o_fp8.stride(), o_scale.stride()) == ((2048, tokens * 2048, 1), (1, 16 * padded, padded))
        assert len(stub.launches) == before + 2
    called = [str(node.target) for graph in graphs for node in graph.graph.nodes if "tuner" in str(node.target)]
    assert len(called) == (2 if dynamic else 4)
    torch._dynamo.reset()


@pytest.mark.parametrize("tokens", [0, 6, 8])
def test_the_fake_outputs_are_those_of_the_call(tokens: int, fused: Op, norm: Op) -> None:
    o, positions, cache = inputs(tokens)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for packed in (False, True):
        real = fused(o, positions, cache, 2, 4, 448, 64, 128, packed)
        fake = FUSED.host_function.fake(o.to("meta"), positions, cache, 2, 4, 448, 64, 128, packed)
        for one, other in zip(real, fake, strict=True):
            assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
        arguments = (o, positions, cache, 2, 4, 448, 64, 128, packed)
        if tokens:  # its own copy of empty tensors fails
            torch.library.opcheck(fused._traced.default, arguments, test_utils=checks)
    x, weight = torch.zeros(tokens, 2048, dtype=torch.bfloat16), torch.zeros(2048, dtype=torch.bfloat16)
    fake = NORM.host_function.fake(x.to("meta"), weight)
    assert (fake.shape, fake.stride(), fake.dtype) == (x.shape, (2048, 1), torch.bfloat16)
    if tokens:
        torch.library.opcheck(norm._traced.default, (x, weight), test_utils=checks)


def test_a_second_op_of_a_kernel_is_another_operator(fused: Op) -> None:
    other = Op(FUSED, baseline(FUSED))
    assert other._traced is not fused._traced
    assert str(fused._traced).startswith("tuner.fused_inv_rope_fp8_quant")


def test_it_runs_where_its_first_input_is(norm: Op, stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.zeros(3, 2048, dtype=torch.bfloat16), torch.zeros(2048, dtype=torch.bfloat16)
    norm(x, weight)
    elsewhere = Op(NORM, baseline(NORM))
    monkeypatch.setattr(elsewhere, "_host", lambda *_: stub.device)
    monkeypatch.setattr(elsewhere, "_current_device", stub.get_current_device)

    class Second:
        def get_device(self) -> int:
            return 1

    assert elsewhere._eager(Second(), weight) == 1
    assert stub.device == -1
    assert elsewhere._eager(x, weight) == -1


def test_it_counts_compiles_and_calls_of_the_general_binary(stub: StubDriver) -> None:
    op = Op(NORM, baseline(NORM))
    buffer, weight = torch.zeros(4 * 2048 + 1, dtype=torch.bfloat16), torch.zeros(2048, dtype=torch.bfloat16)
    op(buffer[1:].view(4, 2048), weight)
    op(buffer[1:].view(4, 2048), weight)
    op(buffer[:-1].view(4, 2048), weight)
    assert op.counts == {"compiles": 2, "prebuilt": 0, "fallbacks": 1}


def compare_in_interpreter(name: str) -> list[tuple[str, int, int]]:
    """In the interpreter: mismatches and elements of the op at every check shape, on random inputs and edges."""
    patch_conversions()
    kernel = load_kernel(name)
    variant = Variant(name, INTERPRETED[name])
    op, found = Op(kernel, lambda _: (Step(1, variant),)), []
    dispatch._empty = poisoned(dispatch._empty)
    for seed, shape in enumerate(kernel.spec.check_shapes):
        for make in (kernel.spec.make_inputs, *kernel.spec.edge_inputs.values()):
            tensors = make(shape, "cpu", seed)
            positional, keywords = arguments_of(name, tensors, shape)
            outputs = storages(name, op(*positional, **keywords))
            agreement = compare(outputs, kernel.spec.reference(tensors, shape), kernel.spec.tolerances)
            found.append((agreement.detail, agreement.mismatched, agreement.elements))
    return found


@pytest.mark.parametrize("name", [FUSED.name, NORM.name])
def test_every_element_is_right_in_the_interpreter(name: str, caches: Path) -> None:
    with WorkerPool(1, INTERPRETER_ENVIRONMENT) as pool:
        found = result(pool.submit(compare_in_interpreter, name, timeout_s=200.0))
    assert isinstance(found, list), found.log
    assert len(found) == 3 * len(load_kernel(name).spec.check_shapes)
    assert [each for each in found if each[1]] == []
    assert all(elements for _, _, elements in found)


def test_load_op_serves_what_lookup_answers(stub: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "this_device", lambda: ("NVIDIA H100 80GB HBM3", DEFAULT_TARGET))
    serving.load_op.cache_clear()
    op = serving.load_op("fused_inv_rope_fp8_quant")
    assert serving.load_op("fused_inv_rope_fp8_quant") is op
    plan = op.plans.of(None, {"num_heads": 64, "n_groups": 8})
    tables = serving.winner_tables(FUSED)
    assert tables
    assert len(plan.launchers) > 2
    for tokens in (*range(1, 140), 362, 363, 724, 725, 1448, 1449, 2896, 2897, 9000, 32767, 32768, 32769, 10**6):
        shape = FUSED.spec.shape({"num_tokens": tokens, "num_heads": 64, "n_groups": 8})
        found = find(tables, shape, ("num_tokens",), "NVIDIA H100 80GB HBM3", DEFAULT_TARGET)
        launcher = plan.launcher(tokens)
        assert isinstance(launcher, Launcher)
        assert launcher.variant == (found.variant if found else FUSED.spec.baseline_variant), tokens
    with pytest.raises(UnknownNameError, match="did you mean 'rms_norm'"):
        serving.load_op("rms_nrom")


def test_one_op_is_loaded_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNER_BUNDLE", raising=False)
    monkeypatch.setattr(serving, "load_kernel", lambda name: (time.sleep(0.05), load_kernel(name))[1])
    serving.load_op.cache_clear()
    with ThreadPoolExecutor(4) as threads:
        ops = list(threads.map(lambda _: serving.load_op(NORM.name), range(4)))
    ops += [serving.load_op(NORM.name, None), serving.load_op(name=NORM.name), serving.load_op(NORM.name, bundle=None)]
    assert len({*map(id, ops)}) == 1
    held = [serving.load_op(NORM.name, tmp_path), serving.load_op(NORM.name, bundle=f"{tmp_path}/")]
    monkeypatch.setenv("TUNER_BUNDLE", str(tmp_path))
    held.append(serving.load_op(NORM.name))
    assert len({*map(id, held)}) == 1
    assert held[0] is not ops[0]


def test_loading_an_op_starts_no_driver(caches: Path) -> None:
    """An engine may fork after it has loaded an op; without a GPU the first call says what is missing."""
    script = """
import torch, tuner
from tuner.errors import UserError
op = tuner.load_op("rms_norm")
from triton.runtime import driver
assert driver._active is None and driver._default is None
assert not torch.cuda.is_initialized()
try:
    op(torch.zeros(3, 2048, dtype=torch.bfloat16), torch.zeros(2048, dtype=torch.bfloat16))
except UserError as error:
    print(error.message)
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "Triton finds no GPU to run on" in done.stdout, done.stderr
