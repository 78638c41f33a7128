"""Real compiles for each target: what is read from the machine code, when binaries are one, and how compiles fail."""

import dataclasses
from functools import cache
from pathlib import Path

import pytest
import triton
from kernel_examples import DOUBLED, SCALE_ROWS, copy_kernel, scale_rows_variant
from triton.runtime.errors import OutOfResources

from tuner.catalog import load_folder, load_kernel
from tuner.compile.builder import Built, CompileJob, build
from tuner.processes import Failure
from tuner.records import Binary, Config, FrozenMapping, SpecializationSet, Status, Target, Variant

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("fresh_caches")]

FUSED = load_kernel("fused_inv_rope_fp8_quant")
TILE = Config(
    "tile",
    FrozenMapping(BLOCK_TOKENS=2, BLOCK_HEADS=2, TOKEN_TILES=1, LOAD_STAGES=1, HEADS_FIRST=0, LAST_FIRST=0),
    FrozenMapping(num_warps=4, num_stages=1),
)


def attempt(variant: Variant, rows: int = 64, target: str = "cuda:90", folder: Path = SCALE_ROWS) -> Built | Failure:
    shape = load_folder(SCALE_ROWS).spec.shape({"num_rows": rows})
    return build(CompileJob(folder, variant, shape, Target.parse(target)))


@cache
def binary(variant: Variant, rows: int = 64, target: str = "cuda:90", folder: Path = SCALE_ROWS) -> Binary:
    built = attempt(variant, rows, target, folder)
    assert isinstance(built, Built), built.log
    return built.binary


def compile_error(folder: Path, **options: int) -> str:
    variant = scale_rows_variant()
    config = dataclasses.replace(variant.config, options=FrozenMapping({**variant.config.options, **options}))
    failure = attempt(dataclasses.replace(variant, config=config), folder=folder)
    assert isinstance(failure, Failure)
    assert failure.status is Status.COMPILE_ERROR
    return failure.log


@pytest.mark.parametrize(
    ("target", "widths"), [("cuda:90", {"8": 1}), ("cuda:100", {"8": 1}), ("hip:gfx942", {"4": 1})]
)
def test_what_a_binary_needs_is_read_from_it(target: str, widths: dict[str, int]) -> None:
    """One warp moves a row of 128 bf16: 256 bytes over 32 or 64 threads, in one load and one store."""
    found = binary(scale_rows_variant(), target=target)
    assert found.load_bytes == widths
    assert found.store_bytes == widths
    assert 4 <= found.registers <= 32
    assert found.spills == found.shared_bytes == 0
    assert 10 <= found.instructions <= 100
    assert found.compile_s > 0
    assert len(found.digest) == 16
    assert "num_warps" in found.specialization_key


def test_binaries_of_targets_differ() -> None:
    variant = scale_rows_variant()
    assert len({binary(variant, target=target).digest for target in ("cuda:90", "cuda:100", "hip:gfx942")}) == 3


def test_the_grid_is_counted_in_programs() -> None:
    for block_rows, programs in ((1, 64), (4, 16)):
        built = attempt(scale_rows_variant(block_rows))
        assert isinstance(built, Built)
        assert (built.programs, built.repeats) == (programs, 1.0)


@pytest.mark.parametrize("config", [TILE, FUSED.spec.baseline], ids=lambda config: config.implementation)
def test_a_stride_that_is_not_specialized_narrows_the_stores(config: Config) -> None:
    shape = FUSED.spec.shape({"num_tokens": 16, "num_heads": 64, "n_groups": 8})
    widths = []
    for marks in (["num_tokens"], ["num_tokens", "fp8_stride_group"]):
        variant = Variant(FUSED.name, config, SpecializationSet.of(marks))
        built = build(CompileJob(FUSED.folder, variant, shape, Target("cuda", "90")))
        assert isinstance(built, Built), built.log
        widths.append(built.binary.store_bytes)
    wide, narrow = widths
    assert wide["16"] == 1
    assert "1" not in wide
    assert narrow["1"] == 16
    assert "16" not in narrow
    assert wide["4"] == narrow["4"]  # the scales


def test_the_digest_is_the_codes_alone(tmp_path: Path) -> None:
    plain = binary(scale_rows_variant())
    renamed = copy_kernel(  # another name, two lines further down
        SCALE_ROWS,
        tmp_path,
        {"kernel.py": ("def scale_rows_kernel", "\n\ndef other"), "spec.py": ("scale_rows_kernel", "other")},
    )
    assert binary(scale_rows_variant(), folder=renamed).digest == plain.digest
    # 64 and 3 rows are two keys; as the kernel only compares them the code is the same.
    unaligned, marked = binary(scale_rows_variant(), rows=3), binary(scale_rows_variant(marks=("num_rows",)))
    assert unaligned.specialization_key != plain.specialization_key
    assert marked.digest == unaligned.digest == plain.digest
    assert binary(scale_rows_variant(block_rows=4)).digest != plain.digest
    assert binary(scale_rows_variant(num_warps=2)).digest != plain.digest
    assert binary(scale_rows_variant(marks=("row_stride",))).digest != plain.digest


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_a_second_compile_comes_from_the_cache_and_is_the_same(target: str, fresh_caches: Path) -> None:
    first = binary(scale_rows_variant(block_rows=2), target=target)
    written = {path: path.stat().st_mtime_ns for path in fresh_caches.rglob("*")}
    again = binary.__wrapped__(scale_rows_variant(block_rows=2), target=target)
    assert {path: path.stat().st_mtime_ns for path in fresh_caches.rglob("*")} == written
    assert dataclasses.replace(again, compile_s=first.compile_s) == first


def test_an_error_of_the_compiler_is_in_the_log(tmp_path: Path) -> None:
    broken = ("    column =", '    tl.static_assert(BLOCK_ROWS > 100, "rows must be many")\n    column =')
    assert "rows must be many" in compile_error(copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": broken}))


def test_an_error_of_the_assembler_is_in_the_log(tmp_path: Path) -> None:
    assembly = 'tl.inline_asm_elementwise("no.such.instruction $0, $1;", "=r,r", [x], x.dtype, True, 2)'
    log = compile_error(copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": (DOUBLED, assembly)}))
    assert "no.such.instruction" in log or "ptxas" in log


def test_an_error_of_the_modules_import_is_in_the_log(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"kernel.py": ("import triton\n", "import triton\nimport no_such\n")})
    assert "No module named 'no_such'" in compile_error(folder)


def test_an_error_of_the_specs_launch_is_in_the_log(tmp_path: Path) -> None:
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": ('    rows = shape.size("num_rows")', "    rows = 1 // 0")})
    assert "ZeroDivisionError" in compile_error(folder)


def test_a_config_that_the_spec_refuses_ends_alone(tmp_path: Path) -> None:
    refused = '    from tuner.errors import UserError\n    raise UserError("BLOCK_ROWS is larger than n")'
    folder = copy_kernel(SCALE_ROWS, tmp_path, {"spec.py": ('    rows = shape.size("num_rows")', refused)})
    assert compile_error(folder) == "BLOCK_ROWS is larger than n"


def test_an_option_that_triton_refuses_is_in_the_log() -> None:
    assert "num_warps" in compile_error(SCALE_ROWS, num_warps=3)


def test_out_of_resources_is_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OutOfResources(300_000, 232_448, "shared memory")

    monkeypatch.setattr(triton, "compile", refuse)
    failure = attempt(scale_rows_variant())
    assert isinstance(failure, Failure)
    assert failure.status is Status.OUT_OF_RESOURCES
    assert "shared memory" in failure.log
