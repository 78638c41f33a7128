"""A space file becomes a SearchSpace, or a SpaceError that says where it is wrong and what to try."""

import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.errors import SpaceError
from tuner.records import OPTION_NAMES, Config, FrozenMapping, L2State, SpecializationSet, Variant
from tuner.space import Objective, SearchSpace, load_space
from tuner.space.document import OptionsSection, OptionValues

Load = Callable[[str | bytes], SearchSpace]
Refusal = Callable[[str | bytes], str]


def test_every_part_of_the_file_reaches_the_record(load: Load, good: str) -> None:
    space = load(good)
    assert space.kernel == "quantize"
    tile, per_head = space.implementations
    assert (tile.name, per_head.name) == ("tile", "per_head")
    assert list(tile.parameters.items()) == [("BLOCK_TOKENS", (1, 2, 4, 8)), ("BLOCK_HEADS", (1, 2, 4, 8))]
    assert list(tile.options.items()) == [("num_warps", (1, 2, 4, 8)), ("num_stages", (1, 2))]
    assert [(each.text, each.line) for each in tile.constraints] == [
        ("BLOCK_HEADS <= num_heads // n_groups", 11),
        ("BLOCK_TOKENS * BLOCK_HEADS <= 32", 12),
    ]
    assert per_head.parameters == {} and per_head.constraints == ()
    assert space.candidates == ("num_tokens", "fp8_stride")
    assert space.alignment_candidates == ("fp8_stride",)
    assert (space.objective, space.l2) == (Objective.LATENCY, L2State.COLD)
    assert (space.trials, space.timeout_s) == (30, 600.0)
    config = Config("per_head", FrozenMapping(), FrozenMapping(num_warps=1, num_stages=1))
    assert space.baseline == Variant("quantize", config, SpecializationSet(("num_tokens",)))


def test_shapes_are_the_products_in_file_order_without_repeats(load: Load, good: str) -> None:
    shapes = load(good).shapes
    assert [(each["num_tokens"], each["n_groups"]) for each in shapes] == [(1, 8), (1, 64), (16, 8), (16, 64)]
    assert all(each["num_heads"] == 64 and each["layout"] == "row" for each in shapes)


def test_workload_and_objective_reach_the_record(load: Load, minimal: str) -> None:
    space = load(minimal + "workload: chat\nobjective: pareto\nserving: {steps: 5}\n")
    assert (space.workload, space.objective, space.steps) == ("chat", Objective.PARETO, 5)


def test_what_is_left_out_has_defaults(load: Load, minimal: str) -> None:
    space = load(minimal)
    assert (space.objective, space.l2, space.trials) == (Objective.LATENCY, L2State.WARM, 100)
    assert (space.workload, space.steps) == (None, 100_000)
    assert space.timeout_s is None and space.baseline is None
    assert space.candidates == space.alignment_candidates == ()


def test_the_record_can_be_hashed_compared_and_sent_to_a_process(load: Load, good: str) -> None:
    space = load(good)
    copy = pickle.loads(pickle.dumps(space))
    assert copy == space and hash(copy) == hash(space)
    assert list(copy.configs(space.shapes[0])) == list(space.configs(space.shapes[0]))
    assert load(good.replace("trials: 30", "trials: 31")) != space


def test_aliases_repeat_a_value(load: Load, minimal: str) -> None:
    space = load(minimal.replace("tile: {}", "tile: &same {options: {num_warps: [2]}}\n  other: *same"))
    assert space.implementation("other").options == {"num_warps": (2,)}


def test_a_dimension_left_to_its_default_can_be_used_when_the_caller_names_it(tmp_path: Path, minimal: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(minimal.replace("tile: {}", "tile: {constraints: [group_size > 1]}"))
    with pytest.raises(SpaceError, match="'group_size'"):
        load_space(path)
    assert load_space(path, dimensions=["group_size"]).implementations[0].constraints[0].names == {"group_size"}


# What is replaced in the good file, by what, the line of the error, and parts of its text.
WRONG = {
    "unknown key": ("kernel:", "kernle:", 1, ["'kernle'", "did you mean 'kernel'?"]),
    "missing key": ("kernel:", "#", 2, ["'kernel' is missing", "Add `kernel:`"]),
    "unknown section key": ("constraints:", "constraint:", 10, ["implementations.tile", "did you mean 'constraints'?"]),
    "unknown option": ("num_warps: [1, 2", "num_warp: [1, 2", 8, ["'num_warp'", "did you mean 'num_warps'?"]),
    "unknown specialization": ("do_not_specialize:", "dont_specialize:", 16, ["did you mean 'do_not_specialize'?"]),
    "unknown measurement": ("l2: cold", "l3: cold", 23, ["measurement", "did you mean 'l2'?"]),
    "unknown budget": ("trials:", "trails:", 25, ["budget", "did you mean 'trials'?"]),
    "unknown baseline key": ("implementation: per", "implementations: per", 28, ["did you mean 'implementation'?"]),
    "unknown baseline option": ("num_stages: 1}", "stages: 1}", 30, ["did you mean 'num_stages'?"]),
    "repeated key": ("objective:", "kernel: x\nobjective:", 21, ["'kernel' is repeated", "line 1"]),
    "repeated deep key": ("BLOCK_HEADS: ", "BLOCK_TOKENS: ", 6, ["'BLOCK_TOKENS' is repeated", "line 5"]),
    "number as key": ("BLOCK_HEADS: ", "5: ", 6, ["'5' as a key", "expected a name"]),
    "list as key": ("BLOCK_HEADS: ", "[a]: ", 6, ["a list or mapping as a key"]),
    "parameter no identifier": ("BLOCK_HEADS: ", "BLOCK-HEADS: ", 6, ["'BLOCK-HEADS'", "name of an argument"]),
    "candidate no identifier": ("[num_tokens, fp8", "[num_tokens, if, fp8", 16, ["'if'", "name of an argument"]),
    "option as parameter": ("BLOCK_HEADS: ", "num_warps: ", 6, ["'num_warps' is a compile option", "Move num_warps"]),
    "empty values": ("BLOCK_HEADS: [1, 2, 4, 8]", "BLOCK_HEADS: []", 6, ["an empty list", "at least one value"]),
    "repeated values": ("BLOCK_HEADS: [1, 2", "BLOCK_HEADS: [1, 1", 6, ["values that differ", "1 is repeated"]),
    "no list": ("BLOCK_HEADS: [1, 2, 4, 8]", "BLOCK_HEADS: 8", 6, ["is 8", "expected a list"]),
    "text value": ("BLOCK_HEADS: [1", "BLOCK_HEADS: [one", 6, ["BLOCK_HEADS[0] is 'one'", "expected an integer"]),
    "bool value": ("BLOCK_HEADS: [1", "BLOCK_HEADS: [true", 6, ["is true", "expected an integer"]),
    "float value": ("BLOCK_HEADS: [1", "BLOCK_HEADS: [1.0", 6, ["is 1.0", "expected an integer"]),
    "base 60": ("BLOCK_HEADS: [1", "BLOCK_HEADS: [1:30", 6, ["'1:30'", "expected an integer"]),
    "octal": ("BLOCK_HEADS: [1", "BLOCK_HEADS: [010", 6, ["'010'", "expected an integer"]),
    "past 64 bits": ("BLOCK_HEADS: [1", "BLOCK_HEADS: [99999999999999999999", 6, ["or less"]),
    "warps no power": ("num_warps: [1, 2", "num_warps: [1, 3", 8, ["num_warps[1] is 3", "a power of two from 1 to 32"]),
    "warps too many": ("num_warps: [1, 2", "num_warps: [64, 2", 8, ["is 64", "a power of two from 1 to 32"]),
    "no stages": ("num_stages: [1, 2]", "num_stages: [0, 2]", 9, ["is 0", "1 or more"]),
    "no flag": ("num_stages: [1, 2]", "launch_pdl: [2]", 9, ["launch_pdl[0] is 2", "1 or less"]),
    "registers": ("num_stages: [1, 2]", "maxnreg: [512]", 9, ["is 512", "255 or less"]),
    "option without values": ("num_stages: [1, 2]", "num_stages:", 9, ["is empty", "Give it a value"]),
    "empty implementation": ("    options: {num_warps: [1], num_stages: [1]}\n", "", 13, ["per_head is empty"]),
    "constraint no text": ("BLOCK_TOKENS * BLOCK_HEADS <= 32", "32", 12, ["is 32", "expected text"]),
    "repeated candidate": ("[num_tokens, fp8_stride]", "[num_tokens, num_tokens]", 16, ["'num_tokens' is repeated"]),
    "empty dimension": ("num_tokens: [1, 16]", "num_tokens: []", 19, ["shapes[0].num_tokens", "at least one value"]),
    "float dimension": ("num_tokens: [1, 16]", "num_tokens: [1, 1.5]", 19, ["shapes[0].num_tokens", "it holds 1.5"]),
    "bool dimension": ("num_tokens: 16", "num_tokens: true", 20, ["shapes[1].num_tokens is true", "integer, text"]),
    "repeated dimension": ("num_tokens: [1, 16]", "num_tokens: [16, 16]", 19, ["16 is repeated"]),
    "objective": ("objective: latency", "objective: latencyy", 21, ["'latencyy'", "did you mean 'latency'?"]),
    "serving objective": ("objective: latency", "objective: servin", 21, ["'servin'", "did you mean 'serving'?"]),
    "serving key": (
        "objective: latency",
        "serving: {step: 9}",
        21,
        ["key in serving: 'step'", "did you mean 'steps'?"],
    ),
    "no steps": ("objective: latency", "serving: {steps: 0}", 21, ["serving.steps is 0", "1 or more"]),
    "workload list": ("objective: latency", "workload: [a]", 21, ["workload is a list", "expected text"]),
    "l2": ("l2: cold", "l2: colt", 23, ["'colt'", "cold, warm", "did you mean 'cold'?"]),
    "l2 list": ("l2: cold", "l2: [cold]", 23, ["a list", "cold, warm"]),
    "no trials": ("trials: 30", "trials: 0", 25, ["budget.trials is 0", "1 or more"]),
    "trials text": ("trials: 30", "trials: '30'", 25, ["'30'", "expected an integer"]),
    "no time": ("timeout_s: 600", "timeout_s: 0", 26, ["is 0", "more than 0"]),
    "endless": ("timeout_s: 600", "timeout_s: .inf", 26, ["finite"]),
    "baseline value list": ("num_stages: 1}", "num_stages: [1]}", 30, ["is a list", "expected an integer"]),
    "baseline in both": (
        "do_not_specialize: [num_tokens]",
        "do_not_specialize: [a]\n  do_not_specialize_on_alignment: [a]",
        32,
        ["'a' stands in both"],
    ),
    "section is a list": ("measurement:\n  l2: cold", "measurement: [l2]", 22, ["is a list", "expected a mapping"]),
    "shape is a number": ("{num_tokens: 16, num_heads: 64, n_groups: 8, layout: row}", "5", 20, ["shapes[1] is 5"]),
    "bad indentation": ("    options:\n", "   options:\n", 7, ["Not valid YAML", "indentation"]),
    "tab": ("    options:\n", "\toptions:\n", 7, ["Not valid YAML", "spaces, not tabs"]),
    "open bracket": ("[num_tokens]\n", "[num_tokens\n", 32, ["Not valid YAML", "starts on line 31"]),
    "undefined alias": ("trials: 30", "trials: *thirty", 25, ["Not valid YAML", "thirty"]),
    "bad number": ("trials: 30", "trials: !!int many", 25, ["'many'", "expected int"]),
    "tag": ("trials: 30", "trials: !!binary aGk=", 25, ["tag", "Remove the tag"]),
    "unknown name": ("BLOCK_HEADS <=", "BLOCK_HEAD <=", 11, ["'BLOCK_HEAD'", "did you mean 'BLOCK_HEADS'?"]),
    "name of another": ("- BLOCK_HEADS <=", "- maxnreg <=", 11, ["'maxnreg'", "parameters and options"]),
    "parameter named as dimension": ("BLOCK_HEADS: [", "n_groups: [", 6, ["'n_groups' is a dimension", "differ"]),
    "constraint syntax": ("BLOCK_HEADS <=", "BLOCK_HEADS < =", 11, ["cannot be used", "comparison"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_its_line(name: str, refusal: Refusal, good: str, tmp_path: Path) -> None:
    old, new, line, parts = WRONG[name]
    assert old in good
    message = refusal(good.replace(old, new, 1))
    assert f"{tmp_path / 'space.yaml'}:{line}: " in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("content", "line", "part"),
    [
        (b"", 1, "empty"),
        (b"# nothing\n", 1, "empty"),
        (b"- kernel: x\n", 1, "is a list; expected a mapping"),
        (b"5\n", 1, "is 5; expected a mapping"),
        (b"kernel: a\n---\nkernel: b\n", 2, "single document"),
        (b"kernel: x\nshapes: \xff\n", 2, "UTF-8"),
        ("kernel: x\n".encode("utf-16"), 1, "UTF-8"),
        (b"kernel: x\nshapes: \x00\n", 2, "not allowed"),
        (b"<<: {kernel: x}\n", 1, "Unknown key '<<'"),
    ],
)
def test_what_is_no_search_space_at_all_is_refused(content: bytes, line: int, part: str, refusal: Refusal) -> None:
    message = refusal(content)
    assert f"space.yaml:{line}: " in message
    assert part in message


def test_several_problems_are_listed_in_file_order_up_to_ten(refusal: Refusal, good: str) -> None:
    message = refusal(good.replace("trials: 30", "trials: x").replace("BLOCK_HEADS: [1", "BLOCK_HEADS: [x"))
    assert message.index(":6: ") < message.index(":25: ")
    values = ", ".join("abcdefghijklm")
    assert "... and 3 more problems." in refusal(good.replace("BLOCK_HEADS: [1, 2, 4, 8]", f"BLOCK_HEADS: [{values}]"))


def test_both_sections_of_options_take_every_compile_option() -> None:
    assert tuple(OptionsSection.model_fields) == tuple(OptionValues.model_fields) == OPTION_NAMES


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quantize.yaml").write_text("")
    with pytest.raises(SpaceError) as caught:
        load_space(tmp_path / "quantise.yaml")
    assert "quantise.yaml does not exist" in str(caught.value)
    assert f"Did you mean {tmp_path / 'quantize.yaml'}?" in str(caught.value)


def test_a_directory_a_device_and_a_forbidden_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="is a directory"):
        load_space(tmp_path)
    with pytest.raises(SpaceError, match="no regular file"):
        load_space(Path("/dev/zero"))
    path = tmp_path / "secret.yaml"
    path.write_text("kernel: x")
    path.chmod(0)
    if not os.access(path, os.R_OK):
        with pytest.raises(SpaceError, match="cannot be read"):
            load_space(path)


BOMBS = {
    "aliases": b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + b"".join(b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 10)) for name in b"bcdefgh"),
    "alias of itself": b"a: &a [*a]\n",
    "mapping of itself": b"a: &a {b: *a}\n",
    "deep brackets": b"[" * 500_000,
    "deep braces": b"{a: " * 200_000,
    "deep dashes": b"- " * 500_000,
    "deep questions": b"? " * 500_000,
    "many values": b"a: [" + b"1," * 520_000 + b"]",
    "long digits": b"budget: {trials: " + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_exhaust_the_reader_is_refused_at_once(name: str, refusal: Refusal) -> None:
    start = time.perf_counter()
    refusal(BOMBS[name])
    assert time.perf_counter() - start < 5


def test_a_file_above_one_mebibyte_is_refused(refusal: Refusal, load: Load, minimal: str) -> None:
    padding = "#" * ((1 << 20) - len(minimal))
    assert load(minimal + padding).kernel == "quantize"
    assert "larger than 1 MiB" in refusal(minimal + padding + "#")


def test_too_many_shapes_are_refused_without_taking_the_product(refusal: Refusal, minimal: str) -> None:
    numbers = list(range(1, 1001))
    message = refusal(minimal.replace("{num_tokens: 1}", f"{{a: {numbers}, b: {numbers}, c: {numbers}}}"))
    assert "space.yaml:4: " in message and "1000000000 shapes" in message


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "!!python/object/new:os.system ['touch {0}']",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        "!custom {{}}",
    ],
)
def test_yaml_can_run_no_code(value: str, refusal: Refusal, minimal: str, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    message = refusal(minimal.replace("quantize", value.format(witness)))
    assert "space.yaml:1: Found the YAML tag" in message
    assert not witness.exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "text", ["__import__('os').system('touch {0}') == 0", "(1).__class__ == n", "9**9**9 < n", "'a'*10**9 == n"]
)
def test_a_constraint_can_run_no_code(text: str, refusal: Refusal, minimal: str, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    start = time.perf_counter()
    quoted = text.format(witness).replace('"', '\\"')
    message = refusal(minimal.replace("tile: {}", f'tile:\n    constraints:\n      - "{quoted}"'))
    assert "space.yaml:5: Constraint" in message
    assert time.perf_counter() - start < 1 and not witness.exists()
