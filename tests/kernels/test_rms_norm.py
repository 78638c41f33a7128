"""`rms_norm`: its reference against scalar arithmetic, its implementations in Triton's interpreter, what marks cost."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import Job, agreements, tile_or
from kernel_examples import copy_kernel

from tuner.catalog import Bounds
from tuner.catalog.kernels import load_kernel
from tuner.compile.builder import Built, CompileJob, build
from tuner.compile.module import load_variant
from tuner.compile.specialization import bind, reachable_keys
from tuner.errors import UserError
from tuner.processes import WorkerPool
from tuner.records import DEFAULT_TARGET, Binary, Config, FrozenMapping, Shape, SpecializationSet, Target, Variant
from tuner.session import load_fitting_space
from tuner.verify.agreement import compare

NAME = "rms_norm"
CUDA = Target("cuda", "90")


def tile(rows: int, columns: int, tiles: int = 1, stages: int = 1, stream: int = 0) -> dict[str, int]:
    values = {"BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns, "ROW_TILES": tiles, "LOAD_STAGES": stages}
    return {**values, "STREAM": stream}


# One pass and two, with and without a walk over several tiles, of one row and more.
TILES = (
    tile(1, 16384),
    tile(4, 16384, tiles=2, stages=2, stream=1),
    tile(1, 512, stages=3, stream=1),
    tile(2, 2048, tiles=2, stages=2),
    tile(8, 4096, stream=1),
)
# Under the other releases too: the baseline, and a walk over tiles in one pass and in two.
EVERYWHERE = (None, TILES[1], TILES[3])
ONE_PASS, TWO_PASSES = tile(2, 4096, tiles=2), tile(2, 512, stages=2)
EDGE_SHAPE = {"num_tokens": 11, "hidden_size": 2320}
# One wrong piece of kernel.py each, the tile that runs it, and the inputs that must be the first to show it.
SQUARES = "tl.sum(x * x, axis=1)"
LOOP = "range(0, HIDDEN_SIZE, BLOCK_COLUMNS, num_stages=LOAD_STAGES):\n{0}column = start + block\n{0}mask".format(
    12 * " "
)
RESULT = "y = x * rstd[:, None] * weight[None, :]\n        y_tile"
BREAKS = {
    "no eps": (f"{SQUARES} * (1.0 / HIDDEN_SIZE) + eps", f"{SQUARES} * (1.0 / HIDDEN_SIZE)", ONE_PASS, "random"),
    "mean of the block": (f"{SQUARES} * (1.0", f"{SQUARES} * (HIDDEN_SIZE / BLOCK_COLUMNS", ONE_PASS, "random"),
    "rounded before the weight": (RESULT, RESULT.replace(" *", ".to(tl.bfloat16) *"), ONE_PASS, "random"),
    "squares rounded": ("squares += x * x", "squares += (x * x).to(tl.bfloat16)", TWO_PASSES, "random"),
    "last block left out": (LOOP, LOOP.replace("E,", "E - 512,", 1), TWO_PASSES, "random"),
    "large squares cut": (SQUARES, f"tl.minimum({SQUARES}, 1e30)", ONE_PASS, "extreme"),
    "negative zero lost": ("y_tile, y.to", "y_tile, (y + 0.0).to", ONE_PASS, "extreme"),
    "stride of random rows": (
        "x_ptr + (row64 * x_row_stride)[:, None] +",
        "x_ptr + (row64 * 2384)[:, None] +",
        ONE_PASS,
        "strided",
    ),
}


def job(shape: Shape, parameters: Mapping[str, int] | None = None, folder: Path | None = None) -> Job:
    """One run of the tile implementation with these parameters, or of the baseline without any."""
    return Job(folder or load_kernel(NAME).folder, tile_or("per_row", parameters), shape)


@pytest.mark.parametrize(
    "parameters",
    [pytest.param(each, marks=[pytest.mark.triton] if each in EVERYWHERE else []) for each in (None, *TILES)],
    ids=lambda p: "-".join(map(str, p.values())) if p else "per_row",
)
def test_implementation_equals_reference(parameters: Mapping[str, int] | None, interpreter: WorkerPool) -> None:
    spec = load_kernel(NAME).spec
    jobs = [job(shape, parameters) for shape in (*spec.check_shapes, spec.shape(EDGE_SHAPE))]
    for each, agreement in zip(jobs, agreements(interpreter, jobs), strict=True):
        assert agreement.elements == 3 * each.shape.size("num_tokens") * each.shape.size("hidden_size")
        assert agreement.mismatched == 0, (each, agreement.detail)
        assert agreement.undecided < 0.01 * agreement.elements


def test_broken_kernels_are_noticed(tmp_path: Path, interpreter: WorkerPool) -> None:
    jobs, kernel = [], load_kernel(NAME)
    for number, (right, wrong, parameters, _) in enumerate(BREAKS.values()):
        folder = copy_kernel(kernel.folder, tmp_path / str(number), {"kernel.py": (right, wrong)})
        jobs.append(job(kernel.spec.shape(EDGE_SHAPE), parameters, folder))
    for (name, (_, _, _, case)), agreement in zip(BREAKS.items(), agreements(interpreter, jobs), strict=True):
        assert agreement.mismatched > 0, name
        assert f"on {case} inputs" in agreement.detail, name


def test_check_shapes_reach_every_path() -> None:
    """One row, partial tiles of rows, and for each block of columns a tail in two passes and one in one pass."""
    space = load_fitting_space(load_kernel(NAME), None).implementation("tile")
    shapes = load_kernel(NAME).spec.check_shapes
    hidden_sizes = [shape.size("hidden_size") for shape in shapes]
    assert any(shape["num_tokens"] == 1 for shape in shapes)
    for rows in (rows * tiles for rows in space.parameters["BLOCK_ROWS"] for tiles in space.parameters["ROW_TILES"]):
        counts = [shape.size("num_tokens") for shape in shapes]
        assert rows == 1 or any(count % rows for count in counts)
        assert rows == 1 or rows > 16 or any(count > rows and count % rows for count in counts)
    for columns in space.parameters["BLOCK_COLUMNS"]:
        tails = [hidden for hidden in hidden_sizes if hidden % columns]
        assert columns > 8192 or any(hidden > columns for hidden in tails)
        assert columns <= 2048 or any(hidden < columns for hidden in tails)


# --- the reference


def fp32_row(x: np.ndarray, weight: np.ndarray, order: str, slip: int) -> np.ndarray:
    """One row in fp32 by the contract: squares added in this order, rstd moved by units in the last place."""
    squares = x * x
    if order == "lanes":
        total = np.float32(0)
        for lane in np.pad(squares, (0, -len(squares) % 32)).reshape(-1, 32).T:
            total += np.add.accumulate(lane, dtype=np.float32)[-1]
    else:
        while len(squares) > 1:
            squares = np.pad(squares, (0, len(squares) % 2))
            squares = squares[::2] + squares[1::2]
        total = squares[0]
    rstd = np.float32(1) / np.sqrt(total / np.float32(len(x)) + np.float32(1e-6))
    rstd = (rstd.view(np.int32) + np.int32(slip)).view(np.float32)
    return x * rstd * weight


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    hidden=st.sampled_from([2048, 2320, 7168, 16384]),
    case=st.sampled_from(["random", "extreme"]),
    order=st.sampled_from(["lanes", "tree"]),
    slip=st.integers(-3, 3),
)
def test_reference_holds_what_fp32_gives(seed: int, hidden: int, case: str, order: str, slip: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 3, "hidden_size": hidden})
    inputs = ({"random": spec.make_inputs, **spec.edge_inputs}[case])(shape, "cpu", seed)
    expected = spec.reference(inputs, shape)
    weight = inputs["weight"].float().numpy()
    rows = [fp32_row(row.float().numpy(), weight, order, slip) for row in inputs["x"]]
    outputs = {"y": torch.from_numpy(np.stack(rows)).bfloat16()}
    agreement = compare(outputs, expected, {})
    assert agreement.mismatched == 0, agreement.detail
    assert outputs["y"].isfinite().all()


def test_the_worst_order_stays_within_the_bounds() -> None:
    """Each of 32 lanes starts at 2**24 and then adds 511 times just under half a unit in the last place: it is lost."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 1, "hidden_size": 16384})
    inputs = spec.make_inputs(shape, "cpu", 0)
    inputs["x"].uniform_(0.875, 1.0, generator=torch.Generator().manual_seed(0))[:, :32] = 4096.0
    row = fp32_row(inputs["x"][0].float().numpy(), inputs["weight"].float().numpy(), "lanes", 3)
    assert compare({"y": torch.from_numpy(row).bfloat16()}, spec.reference(inputs, shape), {}).mismatched == 0


@pytest.mark.parametrize("hidden", [2048, 4096, 16384])
def test_few_elements_are_undecided(hidden: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 32, "hidden_size": hidden})
    y = spec.reference(spec.make_inputs(shape, "cpu", 7), shape)["y"]
    assert 0 < (y.low != y.high).double().mean() < 0.01
    assert (y.low.float() <= y.high.float()).all()
    assert ((y.high.view(torch.int16) - y.low.view(torch.int16)).abs() <= 1).all()


def test_reference_is_the_formula() -> None:
    """A row of fours over a weight of threes: 4 / sqrt(16 + 1e-6) * 3; a row of zeros keeps its signs."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 3, "hidden_size": 2048})
    inputs = spec.make_inputs(shape, "cpu", 0)
    for row, value in enumerate((4.0, -0.0, 1e-3)):
        inputs["x"][row] = value
    inputs["weight"].fill_(3.0)
    y = spec.reference(inputs, shape)["y"]
    assert (y.low[0] <= 3.0).all()
    assert (y.high[0] == 3.0).all()
    assert (y.low[1] == 0).all() and (y.low[1].signbit() & y.high[1].signbit()).all()
    assert torch.allclose(y.low[2].float(), torch.tensor(3 / 2**0.5), rtol=5e-3)


def test_products_are_rounded_as_fp32_rounds_them() -> None:
    """Beside a huge element the product of a tiny one and rstd is zero, whatever the weight; its sign stays."""
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 1, "hidden_size": 2048})
    inputs = spec.make_inputs(shape, "cpu", 0)
    inputs["x"].fill_(-(2.0**-110))[0, 5] = 255 * 2.0**56
    inputs["weight"].fill_(2.0**119)
    y = spec.reference(inputs, shape)["y"]
    for end in (y.low, y.high):
        assert (end[0, :5] == 0).all() and end[0, :5].signbit().all()
        assert end[0, 5] > 2.0**124


def test_chunks_do_not_change_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 7, "hidden_size": 2048})
    inputs = spec.make_inputs(shape, "cpu", 0)
    whole = spec.reference(inputs, shape)["y"]
    monkeypatch.setitem(spec.reference.__globals__, "CHUNK_ELEMENTS", 3 * 2048)
    pieces = spec.reference(inputs, shape)["y"]
    assert torch.equal(pieces.low, whole.low)
    assert torch.equal(pieces.high, whole.high)


def test_comparison_notices_one_wrong_element() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 5, "hidden_size": 2048})
    expected: Mapping[str, Bounds] = spec.reference(spec.make_inputs(shape, "cpu", 0), shape)
    y = expected["y"].low.clone()
    assert compare({"y": y}, expected, {}).mismatched == 0
    y.view(torch.int16)[3, 2047] += 2
    assert compare({"y": y}, expected, {}).mismatched == 1


# --- the inputs


def test_random_rows_lie_in_a_wider_buffer_of_nan() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 40, "hidden_size": 2048})
    plain, strided = spec.make_inputs(shape, "cpu", 1)["x"], spec.edge_inputs["strided"](shape, "cpu", 1)["x"]
    assert plain.stride(0) == 2048 + 64
    assert strided.stride(0) == 2048 + 64 + 16
    assert torch.equal(plain, strided)
    assert plain.isfinite().all()
    for x in (plain, strided):
        storage = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
        assert storage.isnan().sum() == storage.numel() - x.numel() > 0
    mean = plain.double().square().mean(1)
    assert (mean < 1e-6).any() and (mean > 1e2).any()


def test_extreme_rows_are_what_random_ones_are_not() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 200, "hidden_size": 2320})
    inputs = spec.edge_inputs["extreme"](shape, "cpu", 0)
    x, weight = inputs["x"].double(), inputs["weight"].double()
    total, size = x.square().sum(1), x.abs()
    assert x.isfinite().all() and (total < torch.finfo(torch.float32).max).all()
    zeros = total == 0
    assert (x[zeros].signbit().any(1) & ~x[zeros].signbit().all(1)).all() and zeros.any()
    filled = (total > 2.0**124) & (size.amin(1) > 2.0**50)
    subnormal = (size.amax(1) <= 2.0**-126) & ~zeros
    beside_eps = (total / 2320 > 1e-8) & (total / 2320 < 1e-4)
    hot = size.amax(1) == 255 * 2.0**56
    for kind in (zeros, filled, subnormal, beside_eps, hot):
        assert kind.any()
    for kind in (zeros, subnormal, hot):
        assert not (kind[1:] & kind[:-1]).any()
    assert {0, 2319} < set(size[hot].argmax(1).tolist())
    assert (size[hot] < 2.0**-100).sum(1).eq(2319).all()
    assert (weight == 0).any() and (weight < 0).any()
    # No |x * rstd| passes sqrt(16384), and no product with that bf16.
    assert 2.0**110 < weight.abs().max() < torch.finfo(torch.bfloat16).max / 2**7


@pytest.mark.triton
@pytest.mark.parametrize("name", ["extreme", "strided"])
@pytest.mark.parametrize("padding", [0, 64, 8, 7])
def test_edges_need_no_compile_of_their_own(name: str, padding: int) -> None:
    spec = (kernel := load_kernel(NAME)).spec
    shape = spec.shape({"num_tokens": 17, "hidden_size": 4096, "row_padding": padding})
    outputs, keys = spec.make_outputs(shape, "meta"), set()
    for make in (spec.make_inputs, spec.edge_inputs[name]):
        arguments = spec.launch(make(shape, "meta", 0), outputs, shape, spec.baseline).arguments
        keys.add(bind(load_variant(kernel, spec.baseline_variant), arguments, DEFAULT_TARGET).key)
    assert len(keys) == 1


# --- what specialization does to it


@pytest.fixture(scope="module", autouse=True)
def _fresh_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(folder / "tuner"))
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        yield


WHOLE_ROWS = Config("tile", FrozenMapping(tile(2, 4096)), FrozenMapping(num_warps=8, num_stages=1))
IN_BLOCKS = Config("tile", FrozenMapping(tile(1, 1024)), FrozenMapping(num_warps=4, num_stages=1))
BASELINE = load_kernel(NAME).spec.baseline
CONFIGS = pytest.mark.parametrize("config", [BASELINE, WHOLE_ROWS, IN_BLOCKS], ids=["per_row", "whole", "blocks"])
NO_LOOP = pytest.mark.parametrize("config", [BASELINE, WHOLE_ROWS], ids=["per_row", "whole"])


def compiles(config: Config, marks: SpecializationSet, paddings: tuple[int, ...], tokens: range) -> int:
    kernel = load_kernel(NAME)
    sizes = [{"num_tokens": count, "hidden_size": 4096, "row_padding": each} for each in paddings for count in tokens]
    return len(reachable_keys(kernel, Variant(NAME, config, marks), map(kernel.spec.shape, sizes), CUDA))


@pytest.mark.triton
@NO_LOOP
@pytest.mark.parametrize(
    ("marks", "on_alignment", "count", "count_with_odd_strides"),
    [
        ([], [], 3, 6),
        ([], ["num_tokens"], 2, 4),
        (["num_tokens"], [], 1, 2),
        (["x_row_stride", "y_row_stride"], [], 3, 3),
        (["num_tokens", "x_row_stride"], [], 1, 1),
        (["num_tokens"], ["x_row_stride"], 1, 1),
    ],
)
def test_compiles_over_serving_sizes(
    config: Config, marks: list[str], on_alignment: list[str], count: int, count_with_odd_strides: int
) -> None:
    chosen = SpecializationSet.of(marks, on_alignment)
    assert compiles(config, chosen, (0,), range(1, 513)) == count
    assert compiles(config, chosen, (0, 64, 8, 7), range(1, 66)) == count_with_odd_strides


@cache
def widths(config: Config, marks: SpecializationSet, padding: int = 64) -> tuple[dict[str, int], dict[str, int], int]:
    """Loads, stores (number of instructions by bytes) and registers of the kernel for `cuda:90`."""
    kernel = load_kernel(NAME)
    shape = kernel.spec.shape({"num_tokens": 512, "hidden_size": 4096, "row_padding": padding})
    built = build(CompileJob(kernel.folder, Variant(NAME, config, marks), shape, CUDA))
    assert isinstance(built, Built), built.log
    binary: Binary = built.binary
    assert binary.spills == 0
    return dict(binary.load_bytes), dict(binary.store_bytes), binary.registers


@pytest.mark.triton
@pytest.mark.parametrize("marks", [[], ["num_tokens", "eps"]])
@CONFIGS
def test_accesses_are_wide_without_a_marked_stride(config: Config, marks: list[str]) -> None:
    loads, stores, _ = widths(config, SpecializationSet.of(marks))
    assert loads.keys() == stores.keys() == {"16"}


@pytest.mark.triton
@NO_LOOP
def test_a_marked_input_stride_costs_eight_loads_for_one(config: Config) -> None:
    wide, stores, _ = widths(config, SpecializationSet())
    for marks in (SpecializationSet.of(["x_row_stride"]), SpecializationSet.of([], ["x_row_stride"])):
        loads, same_stores, _ = widths(config, marks)
        assert loads.keys() == {"2", "16"}  # the weight's stay wide
        assert loads["2"] == 8 * (wide["16"] - loads["16"])
        assert same_stores == stores


@pytest.mark.triton
@NO_LOOP
def test_a_marked_output_stride_costs_eight_stores_for_one(config: Config) -> None:
    wide, wide_stores, _ = widths(config, SpecializationSet())
    loads, stores, _ = widths(config, SpecializationSet.of(["y_row_stride"]))
    assert loads == wide
    assert stores == {"2": 8 * wide_stores["16"]}


@pytest.mark.triton
def test_a_marked_stride_narrows_every_access_to_its_rows_in_two_passes() -> None:
    loads, stores, _ = widths(IN_BLOCKS, SpecializationSet.of(["x_row_stride"]))
    assert (loads.keys(), stores.keys()) == ({"2", "16"}, {"16"})
    loads, stores, _ = widths(IN_BLOCKS, SpecializationSet.of(["y_row_stride"]))
    assert (loads.keys(), stores.keys()) == ({"16"}, {"2"})


@pytest.mark.triton
def test_a_marked_hidden_size_narrows_every_access_of_the_baseline() -> None:
    wide, wide_stores, _ = widths(BASELINE, SpecializationSet())
    loads, stores, _ = widths(BASELINE, SpecializationSet.of(["hidden_size"]))
    assert loads == {"2": 8 * wide["16"]}
    assert stores == {"2": 8 * wide_stores["16"]}


@pytest.mark.triton
def test_rows_a_multiple_of_8_apart_are_read_as_if_their_stride_were_marked() -> None:
    """16-byte loads would be right there, but Triton's classes know multiples of 16 only."""
    marked = widths(BASELINE, SpecializationSet.of(["x_row_stride"]))
    for padding in (8, 7):
        assert widths(BASELINE, SpecializationSet(), padding) == marked


# --- the spec


@pytest.mark.parametrize("name", ["tile", "per_row"])
def test_launch_covers_the_signature(name: str) -> None:
    kernel = load_kernel(NAME)
    implementation = kernel.spec.implementation(name)
    functions = {f.name: f for f in ast.parse(kernel.source(implementation)).body if isinstance(f, ast.FunctionDef)}
    shape = kernel.spec.shape({"num_tokens": 17, "hidden_size": 7168})
    inputs, outputs = kernel.spec.make_inputs(shape, "meta", 0), kernel.spec.make_outputs(shape, "meta")
    parameters = tile(2, 4096, tiles=4) if name == "tile" else {}
    launch = kernel.spec.launch(inputs, outputs, shape, Config(name, FrozenMapping(parameters)))
    wanted = [argument.arg for argument in functions[implementation.function].args.args]
    assert sorted([*launch.arguments, *implementation.parameters]) == sorted(wanted)
    assert set(implementation.parameters) == set(parameters)
    assert launch.grid == ((3,) if name == "tile" else (17,))
    assert (launch.arguments["x_row_stride"], launch.arguments["y_row_stride"]) == (7168 + 64, 7168)


@pytest.mark.parametrize(("hidden", "block"), [(2048, 2048), (2064, 4096), (7168, 8192), (16384, 16384)])
def test_the_block_of_the_baseline_is_the_next_power_of_two(hidden: int, block: int) -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 1, "hidden_size": hidden})
    inputs, outputs = spec.make_inputs(shape, "meta", 0), spec.make_outputs(shape, "meta")
    assert spec.launch(inputs, outputs, shape, spec.baseline).arguments["BLOCK"] == block


def test_no_tokens_launch_nothing() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 0, "hidden_size": 2048})
    outputs = spec.make_outputs(shape, "cpu")
    for make in (spec.make_inputs, *spec.edge_inputs.values()):
        inputs = make(shape, "cpu", 0)
        for config in (spec.baseline, WHOLE_ROWS):
            assert spec.launch(inputs, outputs, shape, config).grid == (0,)
        assert compare(outputs, spec.reference(inputs, shape), {}).elements == 0


@pytest.mark.parametrize("hidden", [2040, 4104, 16400, 1])
def test_impossible_sizes_are_refused(hidden: int) -> None:
    spec = load_kernel(NAME).spec
    with pytest.raises(UserError, match=f"{hidden}; expected"):
        spec.make_inputs(spec.shape({"num_tokens": 1, "hidden_size": hidden}), "meta", 0)


def test_traffic_is_counted() -> None:
    spec = load_kernel(NAME).spec
    shape = spec.shape({"num_tokens": 5, "hidden_size": 4096})
    assert spec.bytes_moved(shape) == 4 * 5 * 4096 + 2 * 4096
    assert spec.flops(shape) == 4 * 5 * 4096
