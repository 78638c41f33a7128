"""Each export format, read back as its reader does."""

import dataclasses
import json
import re
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import store_examples
import yaml
from bundle_examples import FUSED, TABLE
from kernel_examples import SCALE_ROWS
from stub_driver import stub_driver

from tuner.catalog import Dimension, Kernel, load_folder
from tuner.errors import UserError
from tuner.export import Format, export
from tuner.records import Bucket, Environment, Evidence, FrozenMapping, Portfolio, Shape, Target, Winner
from tuner.runtime import WinnerTable

MEASURED = dataclasses.replace(store_examples.ENVIRONMENT, device="NVIDIA H100 80GB HBM3")
ESTIMATED = Environment(Target("hip", "gfx942"), Evidence.ESTIMATED, "", "2.13.0", "3.9.0", "", "")


def table(environment: Environment, *shapes: Shape) -> WinnerTable:
    def row(number: int, shape: Shape) -> Winner:
        example = store_examples.winner(number, environment=environment)
        timings = {
            name: dataclasses.replace(getattr(example, name), samples_us=()) for name in ("timing", "baseline_timing")
        }
        return dataclasses.replace(example, shape=shape, **timings)

    rows = tuple(row(number, shape) for number, shape in enumerate(shapes))
    return WinnerTable("scale", store_examples.SOURCE, environment, rows)


SCALE = Kernel(
    SCALE_ROWS,
    dataclasses.replace(
        load_folder(SCALE_ROWS).spec,
        name="scale",
        dimensions=(Dimension("num_tokens", dynamic=True), Dimension("heads"), Dimension("layout", default="row")),
    ),
)
SHAPES = [Shape(num_tokens=tokens, heads=8, layout="row") for tokens in (512, 1, 64)]


@pytest.mark.parametrize("environment", [MEASURED, ESTIMATED], ids=lambda each: str(each.evidence))
@pytest.mark.parametrize(("chosen", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)])
def test_the_whole_table_comes_back(chosen: Format, read: Any, environment: Environment) -> None:
    winners = table(environment, *SHAPES)
    (file,) = export(winners, chosen, SCALE)
    assert file.name == f"scale.{chosen}"
    assert file.text.endswith("\n")
    assert WinnerTable.from_json(read(file.text)) == winners
    assert [file] == export(winners, chosen, SCALE)


FIXED = FrozenMapping[int | str](heads=8, layout="row")
PORTFOLIO = Portfolio("num_tokens", (Bucket(FIXED, 1, None, store_examples.variant(5)),), 1, 0.004, 0.01)


@pytest.mark.parametrize(("chosen", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)])
def test_the_portfolio_comes_back_with_its_table(chosen: Format, read: Any) -> None:
    winners = dataclasses.replace(table(MEASURED, *SHAPES), portfolio=PORTFOLIO)
    (file,) = export(winners, chosen, SCALE)
    assert WinnerTable.from_json(read(file.text)) == winners


def test_vllm_has_each_size_with_its_own_winner() -> None:
    """Whatever the portfolio would run there: its files have no ranges of sizes."""
    winners = table(MEASURED, *SHAPES)
    assert export(dataclasses.replace(winners, portfolio=PORTFOLIO), Format.VLLM, SCALE) == export(
        winners, Format.VLLM, SCALE
    )


def read_as_vllm(folder: Path, name: str) -> dict[int, dict[str, Any]]:
    """As `get_moe_configs` reads its files: by their name; the version aside, each key is a batch size."""
    tuned = json.loads((folder / name).read_text())
    tuned.pop("triton_version", None)
    return {int(key): value for key, value in tuned.items()}


def read_as_sglang(folder: Path, triton: str, name: str) -> dict[int, dict[str, Any]]:
    """It has a folder for each version, and every key is a batch size."""
    tuned = json.loads((folder / "configs" / f"triton_{triton.replace('.', '_')}" / name).read_text())
    return {int(key): value for key, value in tuned.items()}


def nearest(configs: dict[int, dict[str, Any]], tokens: int) -> dict[str, Any]:
    return configs[min(configs, key=lambda size: abs(size - tokens))]


def write(folder: Path, winners: WinnerTable, form: Format, kernel: Kernel) -> list[str]:
    """The names, those of the launch keywords alone."""
    files = export(winners, form, kernel)
    for file in files:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_text(file.text)
    assert len({file.name for file in files}) == len(files)
    return [file.name for file in files if not file.name.endswith(".variants.json")]


ON_H100 = "device_name=NVIDIA_H100_80GB_HBM3.json"


def test_vllm_reads_its_file_and_picks_the_nearest_size(tmp_path: Path) -> None:
    winners = table(MEASURED, *SHAPES)
    (name,) = write(tmp_path, winners, Format.VLLM, SCALE)
    assert name == f"scale,heads=8,{ON_H100}"
    configs = read_as_vllm(tmp_path, name)
    assert list(configs) == [1, 64, 512]
    assert json.loads((tmp_path / name).read_text())["triton_version"] == MEASURED.triton
    for tokens, tuned in ((1, 1), (50, 64), (400, 512), (10_000, 512)):
        (row,) = (row for row in winners.rows if row.shape["num_tokens"] == tuned)
        config = row.variant.config
        assert nearest(configs, tokens) == {**config.parameters, **config.options, "enable_fp_fusion": True}


@pytest.mark.triton
@pytest.mark.parametrize("form", [Format.VLLM, Format.SGLANG])
def test_each_body_can_be_passed_to_the_launch_of_its_implementation(form: Format, tmp_path: Path) -> None:
    """`kernel[grid](..., **config)` refuses whatever is neither an argument nor an option."""
    write(tmp_path, TABLE, form, FUSED)
    name = f"{FUSED.name},num_heads=8,n_groups=4,device_name=cuda_90_estimated"
    if form is Format.VLLM:
        folder, configs = tmp_path, read_as_vllm(tmp_path, f"{name}.json")
    else:
        folder, configs = tmp_path / "configs" / "triton_3_9_0", read_as_sglang(tmp_path, "3.9.0", f"{name}.json")
    rest = {int(size): each for size, each in json.loads((folder / f"{name}.variants.json").read_text()).items()}
    assert rest.keys() == configs.keys() == {1, 24, 64}
    with stub_driver() as stub:
        for row in TABLE.rows:
            size = row.shape.size("num_tokens")
            implementation = FUSED.spec.implementation(rest[size]["implementation"])
            function = run_path(str(FUSED.folder / implementation.file))[implementation.function]
            inputs, outputs = FUSED.spec.make_inputs(row.shape, "cpu", 0), FUSED.spec.make_outputs(row.shape, "cpu")
            launch = FUSED.spec.launch(inputs, outputs, row.shape, row.variant.config)
            function[launch.grid](**launch.arguments, **nearest(configs, size))
            launched = stub.launches[-1]
            assert launched.source.fn.__name__ == implementation.function
            assert launched.metadata.num_warps == row.variant.config.options["num_warps"]


def test_beside_the_keywords_stands_what_else_a_variant_is(tmp_path: Path) -> None:
    winners = table(MEASURED, *SHAPES)
    (name,) = write(tmp_path, winners, Format.VLLM, SCALE)
    rest = json.loads((tmp_path / name.replace(".json", ".variants.json")).read_text())
    assert list(rest) == ["1", "64", "512"]
    assert rest["64"] == {
        "implementation": "rows",
        "do_not_specialize": ["num_tokens"],
        "do_not_specialize_on_alignment": ["stride"],
        "evidence": "measured",
        "environment": MEASURED.label,
        "median_us": 10.1,
        "speedup": {"median": 1.26, "low": 1.2, "high": 1.31},
        "reason": "beat the baseline, choice 2",
    }


def test_vllm_has_a_file_for_each_of_the_fixed_dimensions(tmp_path: Path) -> None:
    """Those at their default are not named, as vLLM does; all others are, in the order of the spec."""
    others = (Shape(num_tokens=64, heads=16, layout="row"), Shape(num_tokens=4, heads=8, layout="column"))
    names = write(tmp_path, table(MEASURED, *SHAPES, *others), Format.VLLM, SCALE)
    assert names == [f"scale,{fixed},{ON_H100}" for fixed in ("heads=8", "heads=16", "heads=8,layout=column")]
    assert [list(read_as_vllm(tmp_path, name)) for name in names] == [[1, 64, 512], [64], [4]]


def test_vllm_names_follow_its_pattern(tmp_path: Path) -> None:
    """Key=value pairs, then the device without blanks; an estimate is never named like a device."""
    for environment in (MEASURED, ESTIMATED):
        (name,) = write(tmp_path, table(environment, *SHAPES), Format.VLLM, SCALE)
        assert re.fullmatch(r"scale(,\w+=\w+)+,device_name=[\w-]+\.json", name)
        assert ("device_name=hip_gfx942_estimated" in name) is (environment is ESTIMATED)


def test_vllm_name_of_a_kernel_without_fixed_dimensions(tmp_path: Path) -> None:
    assert write(tmp_path, table(MEASURED, Shape(num_tokens=4)), Format.VLLM, SCALE) == [f"scale,{ON_H100}"]


def test_sglang_has_a_folder_for_each_triton_version(tmp_path: Path) -> None:
    """Rows of several versions stand where SGLang looks with each; no key but sizes."""
    winners = table(MEASURED, *SHAPES)
    older = dataclasses.replace(winners.rows[0], environment=dataclasses.replace(MEASURED, triton="3.5.1"))
    write(tmp_path, dataclasses.replace(winners, rows=(older, *winners.rows[1:])), Format.SGLANG, SCALE)
    name = f"scale,heads=8,{ON_H100}"
    assert list(read_as_sglang(tmp_path, "3.5.1", name)) == [512]
    assert list(read_as_sglang(tmp_path, MEASURED.triton, name)) == [1, 64]


def test_vllm_keys_need_tokens() -> None:
    with pytest.raises(UserError, match="has no dimension num_tokens") as caught:
        export(table(MEASURED, Shape(rows=4)), Format.VLLM, SCALE)
    assert "json or yaml" in caught.value.hint
