"""What is recommended for the bundled kernels, from classes to the patch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from in_this_process import InThisProcess
from specialize_examples import FUSED, NORM, request_for

from tuner.catalog import Kernel
from tuner.compile.classes import Mark
from tuner.errors import UserError
from tuner.measure.environment import estimated_environment
from tuner.processes import Failure
from tuner.records import DEFAULT_TARGET, Evidence, SpecializationSet, Speedup
from tuner.specialize import Advice, ArgumentReport, Recommendation, bare_function, config_of, looked_at, recommend
from tuner.specialize import specialize as module
from tuner.specialize.workbench import Pair
from tuner.workload import Workload

SIZES = [1, 14, 16, 27, 64, 512, 1001]


@pytest.fixture(autouse=True, scope="module")
def in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WorkerPool", InThisProcess)
        yield


def by_name(found: Recommendation) -> dict[str, ArgumentReport]:
    return {each.name: each for each in found.arguments}


@pytest.fixture(scope="module")
def fused(conversation: Workload) -> Recommendation:
    return recommend(request_for(FUSED, looked_at(FUSED, [], conversation)))


def test_the_fused_kernel_over_the_conversation_workload(fused: Recommendation) -> None:
    """The figures that the README states."""
    assert (fused.unmarked_compiles, fused.declared_compiles, fused.recommended.compiles) == (4, 2, 1)
    assert fused.declared == SpecializationSet.of(["num_tokens"])
    assert fused.recommended.marks == SpecializationSet.of(["num_tokens", "scale_stride_block"])
    assert fused.recommended.effect.cost == ""
    assert fused.fewest is None
    assert fused.environment == estimated_environment(DEFAULT_TARGET)
    assert '+@triton.jit(do_not_specialize=["num_tokens", "scale_stride_block"])' in fused.patch.diff


def test_each_argument_of_the_fused_kernel_is_judged(fused: Recommendation, conversation: Workload) -> None:
    found = by_name(fused)
    assert {name for name, each in found.items() if each.advice is not Advice.LEAVE} == {
        "num_tokens",
        "scale_stride_block",
    }
    for name in ("fp8_stride_group", "scale_stride_group"):
        assert (found[name].alone, found[name].saves_alone, found[name].saves_in_set) == (1, 0, 0)
    assert found["fp8_stride_group"].effects[Mark.SPECIALIZATION].narrowed == ("stores 16 -> 1 bytes",)
    assert found["fp8_stride_group"].reason.startswith("saves no compile, and narrows stores 16 -> 1 bytes")
    assert found["scale_stride_group"].effects[Mark.SPECIALIZATION].same_code
    tokens, block = found["num_tokens"], found["scale_stride_block"]
    assert (tokens.alone, tokens.saves_alone, tokens.saves_in_set) == (3, 2, 2)
    assert (block.alone, block.saves_alone, block.saves_in_set) == (2, 1, 1)
    weights = conversation.weights()
    assert tokens.classes["= 1"] == pytest.approx(weights[1])
    assert block.classes["i32, divisible by 16"] == pytest.approx(
        sum(share for size, share in weights.items() if (size + 3) // 4 * 4 % 16 == 0)
    )
    assert block.reason == "saves 1 compile beside the other marks; same machine code"
    assert found["fp8_ptr"].effects == {}  # aligned at every step
    assert not {"NOPE_DIM", "HEADS_PER_GROUP"} & found.keys()


def test_a_mark_of_the_source_that_is_free_stays() -> None:
    """At these sizes alone it saves nothing, but a server meets others."""
    shapes: list[dict[str, int | str]] = [{"num_tokens": each, "num_heads": 64, "n_groups": 8} for each in (16, 32, 48)]
    found = recommend(request_for(FUSED, looked_at(FUSED, shapes)))
    assert (found.unmarked_compiles, found.recommended.marks) == (1, SpecializationSet.of(["num_tokens"]))
    assert by_name(found)["num_tokens"].reason.startswith("marked in the source; shapes that were not looked at may")


@pytest.mark.triton
def test_the_row_stride_of_rms_norm_narrows_and_saves_nothing() -> None:
    found = recommend(request_for(NORM, looked_at(NORM, [{"num_tokens": size} for size in SIZES])))
    assert (found.unmarked_compiles, found.recommended.compiles, found.fewest) == (3, 1, None)
    assert found.recommended.marks == SpecializationSet.of(["num_tokens"])
    stride = by_name(found)["x_row_stride"]
    assert stride.effects[Mark.SPECIALIZATION].narrowed == ("loads 16 -> 2 bytes",)
    assert stride.effects[Mark.ALIGNMENT].narrowed == ("loads 16 -> 2 bytes",)
    assert (stride.advice, stride.saves_in_set) == (Advice.LEAVE, 0)
    assert stride.reason.startswith("saves no compile, and narrows loads 16 -> 2 bytes")


def odd_strides() -> list[dict[str, int | str]]:
    return [{"row_padding": padding, "num_tokens": size} for padding in (0, 64, 3) for size in SIZES]


def test_odd_strides_would_save_a_compile_but_cost() -> None:
    found = recommend(request_for(NORM, looked_at(NORM, odd_strides())))
    assert (found.unmarked_compiles, found.recommended.compiles) == (6, 2)
    assert found.recommended.marks == SpecializationSet.of(["num_tokens"])
    reason = by_name(found)["x_row_stride"].reason
    assert reason.startswith("would save 1 compile, but narrows loads 16 -> 2 bytes at 66.7% of the steps")
    assert found.fewest is not None
    assert (found.fewest.marks, found.fewest.compiles) == (SpecializationSet.of(["num_tokens", "x_row_stride"]), 1)
    assert found.fewest.effect.cost.startswith("narrows loads 16 -> 2 bytes at 66.7% of the steps")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Recommendation]:
    """Looks at rms_norm as on a GPU, where marking num_tokens gives the ratio and marking anything else 1.2."""

    def look(ratio: float) -> Recommendation:
        def measure(folder: Path, pairs: Sequence[Pair]) -> dict[Pair, Speedup | Failure]:
            assert folder == NORM.folder
            marked = SpecializationSet.of(["num_tokens"])
            each = {pair: ratio if pair.marked.specialization == marked else 1.2 for pair in pairs}
            return {pair: Speedup(value, value - 0.001, value + 0.001) for pair, value in each.items()}

        monkeypatch.setattr(module, "device_environment", lambda: estimated_environment(DEFAULT_TARGET))
        monkeypatch.setattr(module, "measure_pairs", measure)
        return recommend(request_for(NORM, looked_at(NORM, [{"num_tokens": size} for size in (1, 16, 17)]), None))

    return look


def test_on_a_gpu_the_measured_time_decides(measured: Callable[[float], Recommendation]) -> None:
    free, dear = measured(1.005), measured(1.5)
    assert free.recommended.marks == SpecializationSet.of(["num_tokens"])
    # The mark for alignment only leaves 1 its class, and so the code that was slower.
    assert dear.recommended.marks == SpecializationSet.of([], ["num_tokens"])
    assert (dear.recommended.compiles, dear.fewest and dear.fewest.compiles) == (2, 1)
    tokens = by_name(dear)["num_tokens"]
    assert (tokens.advice, tokens.effects[Mark.SPECIALIZATION].evidence) == (Advice.MARK_ALIGNMENT, Evidence.MEASURED)
    assert tokens.reason == "saves 1 compile beside the other marks; same machine code"
    assert "slower (measured)" in tokens.effects[Mark.SPECIALIZATION].cost


def test_another_implementation_takes_its_first_config() -> None:
    scope = looked_at(FUSED, [{"num_tokens": size} for size in SIZES])
    config = config_of(FUSED, "tile", scope, DEFAULT_TARGET)
    assert config.parameters["BLOCK_TOKENS"] == 1
    for name in ("per_head", None):
        assert config_of(FUSED, name, scope, DEFAULT_TARGET) == FUSED.spec.baseline
    with pytest.raises(UserError, match="did you mean 'tile'"):
        config_of(FUSED, "tiles", scope, DEFAULT_TARGET)


PADDED = """\
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["eps"])
def padded_kernel(x_ptr, y_ptr, n, eps, bias, PADDED: tl.constexpr, BLOCK: tl.constexpr = 256):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + i, tl.load(x_ptr + i, mask=i < n) + eps, mask=i < PADDED)
"""
SAMPLES = {
    "x_ptr": "*fp32",
    "y_ptr": "*fp32",
    "n": "num_tokens",
    "eps": "1e-6",
    "bias": "None",
    "PADDED": "(num_tokens + 3) // 4 * 4",
}


@pytest.fixture
def padded(tmp_path: Path) -> tuple[Kernel, Path]:
    path = tmp_path / "padded.py"
    path.write_text(PADDED)
    return bare_function(f"{path}:padded_kernel", SAMPLES, {"num_warps": 2})


@pytest.mark.triton
def test_a_constant_that_a_size_feeds_is_a_compile_for_each_value(padded: tuple[Kernel, Path]) -> None:
    kernel, path = padded
    sizes = [{"num_tokens": size} for size in range(1, 65)]
    found = recommend(request_for(kernel, looked_at(kernel, sizes), source=path, sized=False))
    constant = by_name(found)["PADDED"]
    assert (constant.advice, constant.alone, constant.constexpr) == (Advice.RUN_TIME, 16, True)
    assert constant.reason.startswith(
        "num_tokens feeds it, and each of its 16 values is a compile; a tl.constexpr cannot"
    )
    assert (constant.saves_alone, constant.saves_in_set) == (18, 18)  # of 21; without it the classes of n are left
    assert "BLOCK" not in by_name(found)
    tokens = by_name(found)["n"]
    assert tokens.effects[Mark.SPECIALIZATION].narrowed == ("loads 16 -> 4 bytes",)
    # 1, 2..4 in one block of four, a multiple of 16 beside three others in four of sixteen.
    assert (found.unmarked_compiles, tokens.saves_in_set) == (16 + 1 + 4, 5)
    assert (found.environment, found.recommended.effect.slowdown) == (None, 0.0)
    assert found.fewest is not None
    assert found.recommended.marks == SpecializationSet.of(["eps"])  # the source's own, which is free
    assert (found.patch.path, found.patch.diff) == (path, "")


def test_a_file_that_cannot_be_imported_is_told(padded: tuple[Kernel, Path]) -> None:
    _, path = padded
    path.write_text(f"import nothing_of_this_name\n{PADDED}")
    kernel, _ = bare_function(f"{path}:padded_kernel", SAMPLES, {})
    with pytest.raises(UserError, match=r"padded.py cannot be loaded and bound: ModuleNotFoundError: No module named"):
        recommend(request_for(kernel, looked_at(kernel, [{"num_tokens": 4}]), source=path, sized=False))


def test_shapes_that_launch_nothing_are_told() -> None:
    with pytest.raises(UserError, match="No shape of rms_norm that is looked at launches anything"):
        recommend(request_for(NORM, looked_at(NORM, [{"num_tokens": 0}])))
