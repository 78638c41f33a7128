"""Each export format, read back as its reader does."""

import dataclasses
import json
import re
from typing import Any

import pytest
import store_examples
import yaml

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


SHAPES = [Shape(num_tokens=tokens, heads=8, layout="row") for tokens in (512, 1, 64)]


@pytest.mark.parametrize("environment", [MEASURED, ESTIMATED], ids=lambda each: str(each.evidence))
@pytest.mark.parametrize(("chosen", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)])
def test_the_whole_table_comes_back(chosen: Format, read: Any, environment: Environment) -> None:
    winners = table(environment, *SHAPES)
    (file,) = export(winners, chosen)
    assert file.name == f"scale.{chosen}"
    assert file.text.endswith("\n")
    assert WinnerTable.from_json(read(file.text)) == winners
    assert [file] == export(winners, chosen)


FIXED = FrozenMapping[int | str](heads=8, layout="row")
PORTFOLIO = Portfolio("num_tokens", (Bucket(FIXED, 1, None, store_examples.variant(5)),), 1, 0.004, 0.01)


@pytest.mark.parametrize(("chosen", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)])
def test_the_portfolio_comes_back_with_its_table(chosen: Format, read: Any) -> None:
    winners = dataclasses.replace(table(MEASURED, *SHAPES), portfolio=PORTFOLIO)
    (file,) = export(winners, chosen)
    assert WinnerTable.from_json(read(file.text)) == winners


def test_vllm_has_each_size_with_its_own_winner() -> None:
    """Whatever the portfolio would run there: its files have no ranges of sizes."""
    winners = table(MEASURED, *SHAPES)
    assert export(dataclasses.replace(winners, portfolio=PORTFOLIO), Format.VLLM) == export(winners, Format.VLLM)


def load_as_vllm(text: str) -> dict[int, dict[str, Any]]:
    """As `get_moe_configs` reads its files: the version aside, each key is a batch size."""
    tuned = json.loads(text)
    tuned.pop("triton_version", None)
    return {int(key): value for key, value in tuned.items()}


def test_vllm_reads_its_file_and_picks_the_nearest_size() -> None:
    winners = table(MEASURED, *SHAPES)
    (file,) = export(winners, Format.VLLM)
    assert file.name == "scale,heads=8,layout=row,device_name=NVIDIA_H100_80GB_HBM3.json"
    configs = load_as_vllm(file.text)
    assert list(configs) == [1, 64, 512]
    assert json.loads(file.text)["triton_version"] == MEASURED.triton
    for tokens, nearest in ((1, 1), (50, 64), (400, 512), (10_000, 512)):
        config = configs[min(configs, key=lambda size: abs(size - tokens))]
        (row,) = (row for row in winners.rows if row.shape["num_tokens"] == nearest)
        variant = row.variant
        assert config == {
            "implementation": variant.config.implementation,
            **variant.config.parameters,
            **variant.config.options,
            "evidence": "measured",
            "do_not_specialize": ["num_tokens"],
            "do_not_specialize_on_alignment": ["stride"],
        }


def test_vllm_has_a_file_for_each_of_the_fixed_dimensions() -> None:
    winners = table(MEASURED, *SHAPES, Shape(num_tokens=64, heads=16, layout="row"))
    files = export(winners, Format.VLLM)
    assert [file.name.split(",")[1] for file in files] == ["heads=8", "heads=16"]
    assert [list(load_as_vllm(file.text)) for file in files] == [[1, 64, 512], [64]]


def test_vllm_names_follow_its_pattern() -> None:
    """Key=value pairs, then the device without blanks; an estimate is never named like a device."""
    for environment in (MEASURED, ESTIMATED):
        for file in export(table(environment, *SHAPES), Format.VLLM):
            assert re.fullmatch(r"scale(,\w+=\w+)+,device_name=[\w-]+\.json", file.name)
    (estimated,) = export(table(ESTIMATED, *SHAPES), Format.VLLM)
    assert "device_name=hip_gfx942_estimated" in estimated.name


def test_vllm_name_of_a_kernel_without_fixed_dimensions() -> None:
    (file,) = export(table(MEASURED, Shape(num_tokens=4)), Format.VLLM)
    assert file.name == "scale,device_name=NVIDIA_H100_80GB_HBM3.json"


def test_vllm_keys_need_tokens() -> None:
    with pytest.raises(UserError, match="has no dimension num_tokens") as caught:
        export(table(MEASURED, Shape(rows=4)), Format.VLLM)
    assert "json or yaml" in caught.value.hint
