"""The check in Triton's interpreter: conversions round as torch does, right variants pass, wrong ones end as such."""

from pathlib import Path

import pytest
import torch
from kernel_examples import DOUBLED, SCALE_ROWS, copy_kernel, scale_rows_variant

from tuner.catalog import load_kernel
from tuner.errors import UserError
from tuner.processes import Failure, WorkerPool, result
from tuner.records import Agreement, Config, FrozenMapping, Status, Variant
from tuner.verify.interpreter import check_in_interpreter, patch_conversions

pytestmark = pytest.mark.triton

FUSED = load_kernel("fused_inv_rope_fp8_quant")
TILE = Variant(
    FUSED.name,
    Config(
        "tile", FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=2, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0)
    ),
)
TIMEOUT_S = 200.0
NUMBERS = 1 << 16
PLANTED_FAULTS = SCALE_ROWS.parent / "planted_faults"


def every_number(dtype: torch.dtype) -> torch.Tensor:
    """All values of a 16-bit type; of fp32 many: random bits, ties and their neighbours, small numbers."""
    if dtype.itemsize == 2:
        return torch.arange(NUMBERS, dtype=torch.int32).to(torch.int16).view(dtype)
    bits = torch.randint(-(2**31), 2**31, (NUMBERS,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    bits[::2] &= -(2**16)  # representable in bf16
    bits[::4] |= 2**15  # halfway between two of bf16
    bits[1::8] = (bits[1::8] & -(2**20)) | 2**19  # halfway between two of e4m3
    bits[3::8] = bits[3::8] % (2**27) + (112 << 23)  # 2**-15 to 2**1, where e4m3 loses bits
    return bits.view(torch.float32)


def convert_twice_patched(source: torch.dtype, target: torch.dtype) -> int:
    """In the interpreter: how many of every number come out unlike torch's; the patch applied twice."""
    from conversion_kernel import convert_kernel
    from triton.runtime import interpreter

    patch_conversions()
    once = interpreter._convert_float
    patch_conversions()
    assert interpreter._convert_float is once
    numbers = every_number(source)
    found = torch.empty(NUMBERS, dtype=target)
    convert_kernel[(1,)](numbers, found, COUNT=NUMBERS)
    wanted = numbers.to(target)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[target.itemsize]
    same = (found.view(bits) == wanted.view(bits)) | (found.float().isnan() & wanted.float().isnan())
    return NUMBERS - int(same.count_nonzero())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (source, target)
        for source in (torch.bfloat16, torch.float16, torch.float32)
        for target in (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float32)
        if source is not target
    ],
    ids=str,
)
def test_conversions_equal_torchs(source: torch.dtype, target: torch.dtype, interpreter: WorkerPool) -> None:
    found = result(interpreter.submit(convert_twice_patched, source, target, timeout_s=TIMEOUT_S))
    assert found == 0, found


def check(interpreter: WorkerPool, folder: Path, variant: Variant) -> Agreement | Failure:
    return result(interpreter.submit(check_in_interpreter, folder, variant, timeout_s=TIMEOUT_S))


def test_a_right_variant_passes(interpreter: WorkerPool) -> None:
    found = check(interpreter, FUSED.folder, TILE)
    assert isinstance(found, Agreement), found.log
    assert found.mismatched == 0
    outputs = [FUSED.spec.make_outputs(shape, "meta") for shape in FUSED.spec.check_shapes]
    sizes = [
        output.nbytes if output.dtype == torch.int32 else output.numel() for each in outputs for output in each.values()
    ]
    assert found.elements == 3 * sum(sizes)  # on random, extreme and strided inputs
    assert found.undecided < found.elements / 10


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("offset, mask=mask)\n", "offset, mask=mask & (column != 5)[None, :])\n"),
        ("mask = (row < num_rows)[:, None]", "mask = (row < num_rows - 1)[:, None]"),
        (DOUBLED, "x.to(tl.float32) * 2.015625"),
        (DOUBLED, f"tl.where(column[None, :] == 127, x.to(tl.float32), {DOUBLED})"),
    ],
    ids=["one column read as nothing", "last row not written", "another factor", "last column"],
)
def test_wrong_variants_end_as_wrong_output(right: str, wrong: str, interpreter: WorkerPool, tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": (right, wrong)})
    failure = check(interpreter, folder, scale_rows_variant(block_rows=2))
    assert isinstance(failure, Failure)
    assert failure.status is Status.WRONG_OUTPUT
    assert "in the interpreter at num_rows=3,columns=128: " in failure.log
    assert "of 384 elements differ; on random inputs, y: flat element" in failure.log


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("inverse = ((254 - exponent) << 23)", "inverse = ((253 - exponent) << 23)"),
        ("quantized, mask=mask)", "quantized, mask=mask & (token < num_tokens - 1)[:, None])"),
        ("first * cos + second * sin, first)", "first * cos + second * tl.where(first_token < 4, sin, 0.0), first)"),
    ],
    ids=["wrong scale", "last token not written", "wrong from the fifth token on"],
)
def test_a_broken_fused_kernel_is_noticed(right: str, wrong: str, interpreter: WorkerPool, tmp_path: Path) -> None:
    failure = check(interpreter, copy_kernel(FUSED.folder, tmp_path, {"kernel.py": (right, wrong)}), TILE)
    assert isinstance(failure, Failure)
    assert failure.status is Status.WRONG_OUTPUT, failure.log


def test_a_kernel_that_raises_ends_as_crashed(interpreter: WorkerPool, tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": (DOUBLED, "x * nothing")})
    failure = check(interpreter, folder, scale_rows_variant())
    assert isinstance(failure, Failure)
    assert failure.status is Status.CRASHED
    assert "at num_rows=3,columns=128:" in failure.log
    assert "nothing" in failure.log


def test_without_a_reference_the_baselines_output_is_it(interpreter: WorkerPool, tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": ("    reference=reference,\n", "")})
    found = check(interpreter, folder, scale_rows_variant(block_rows=4))
    assert isinstance(found, Agreement), found.log
    assert "held against the baseline's output" in found.detail
    wrong = (DOUBLED, "x.to(tl.float32) * (1 + BLOCK_ROWS)")  # right in the baseline alone
    folder = copy_kernel(folder, tmp_path / "wrong", {"kernel.py": wrong})
    failure = check(interpreter, folder, scale_rows_variant(block_rows=4))
    assert isinstance(failure, Failure)
    assert failure.status is Status.WRONG_OUTPUT


def test_a_variant_that_is_wrong_on_an_edge_alone_ends_as_wrong_output(interpreter: WorkerPool) -> None:
    config = Config("wrong_when_huge", FrozenMapping(ROWS=16), FrozenMapping(num_warps=4))
    failure = check(interpreter, PLANTED_FAULTS, Variant("planted_faults", config))
    assert isinstance(failure, Failure)
    assert failure.status is Status.WRONG_OUTPUT
    assert "at num_rows=3: " in failure.log
    assert "of 768 elements differ; on huge inputs, y: flat element" in failure.log


@pytest.mark.parametrize("shapes", ["", "Shape(num_rows=0, columns=128),"])
def test_where_nothing_is_compared_nothing_passes(shapes: str, interpreter: WorkerPool, tmp_path: Path) -> None:
    listed = "check_shapes=(Shape(num_rows=3, columns=128), Shape(num_rows=4, columns=16))"
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": (listed, f"check_shapes=({shapes})")})
    with pytest.raises(UserError, match=r"scale_rows cannot be checked without a GPU.*\n.*`check_shapes`"):
        check(interpreter, folder, scale_rows_variant())


def test_check_shapes_may_leave_defaults_out(interpreter: WorkerPool, tmp_path: Path) -> None:
    listed = "check_shapes=(Shape(num_rows=3, columns=128), Shape(num_rows=4, columns=16))"
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": (listed, "check_shapes=(Shape(num_rows=3),)")})
    found = check(interpreter, folder, scale_rows_variant())
    assert isinstance(found, Agreement)
    assert found.elements == 3 * 128


def test_outside_the_interpreter_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        check_in_interpreter(SCALE_ROWS, scale_rows_variant())
