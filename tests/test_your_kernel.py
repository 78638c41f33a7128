"""docs/your_kernel.md: the kernel on it can be tuned, looked up and served as it says, and it names every key."""

import dataclasses
import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from in_this_process import InThisProcess
from op_examples import poisoned
from stub_driver import stub_driver

import tuner
from tuner import serving
from tuner.catalog import Dimension, HostFunction, Implementation, KernelSpec, load_folder, load_kernel
from tuner.cli.main import app, main
from tuner.processes import WorkerPool, result
from tuner.records import KNOWN_TARGETS, Config, Evidence, Shape, SpecializationSet, Status, Winner
from tuner.records.portfolio import REACH
from tuner.runtime import dispatch
from tuner.session import load_fitting_space, whole_shapes
from tuner.space.document import MAX_REGISTERS, MAX_WARPS, BudgetSection, Document, MeasurementSection
from tuner.space.space import DEFAULT_STEPS, Objective
from tuner.store import Store
from tuner.verify.agreement import compare
from tuner.verify.interpreter import patch_conversions

PAGE = (Path(__file__).parents[1] / "docs" / "your_kernel.md").read_text(encoding="utf-8")
NAME = "silu_and_mul"
FILES = dict(re.findall(r"^## `([^`]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
RUN_IT = PAGE.partition("\n## Run it\n")[2]


def block(language: str) -> str:
    """The code block of a language under "Run it"."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", RUN_IT, re.MULTILINE | re.DOTALL)
    return str(found)


COMMANDS = [shlex.split(line, comments=True)[1:] for line in block("sh").splitlines() if line.startswith("tuner ")]


def output_of(name: str, *more: str) -> str:
    """What the page's first command of that name prints, with further words; it must succeed."""
    words = next(words for words in COMMANDS if words[0] == name)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(sys, "argv", ["tuner", *words, *more])
        try:
            main()
        except SystemExit as end:
            assert not end.code, words
    return printed.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, as a reader would save them."""
    found = tmp_path_factory.mktemp("page") / NAME
    found.mkdir()
    for name, text in FILES.items():
        (found / name).write_text(text)
    return found


@pytest.fixture(scope="module")
def settings(folder: Path) -> Mapping[str, str]:
    """Nothing of the user's own takes part."""
    home = folder.parent
    return {
        "TUNER_DB": f"sqlite:///{home / 'store.db'}",
        "TUNER_KERNEL_PATH": str(home),
        "TUNER_CACHE": str(home / "cache"),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "TUNER_TABLE": "",
        "TUNER_BUNDLE": "",
        "TUNER_STRICT": "",
    }


@pytest.fixture(scope="module")
def printed(folder: Path, settings: Mapping[str, str], interpreter: WorkerPool) -> Iterator[str]:
    """What the page's first run prints, of fewer trials; it compiles here and checks where every test does."""

    class Compilers(InThisProcess):
        def load(self, module: str) -> None:
            pass

    class Checkers:
        def __init__(self, *_: object) -> None:
            pass

        def submit(self, *job: Any, timeout_s: float) -> Any:
            return interpreter.submit(*job, timeout_s=timeout_s)

        def kill(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        use(settings, patch)
        patch.setattr(importlib.import_module("tuner.session.run"), "WorkerPool", Compilers)
        patch.setattr("tuner.session.static_evaluator.WorkerPool", Checkers)
        patch.chdir(folder.parent)
        yield output_of("run", "--trials", "3")
        serving.load_op.cache_clear()


def use(settings: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        patch.setenv(name, value)
    patch.setattr(torch.cuda, "is_available", lambda: False)


def winners(settings: Mapping[str, str]) -> dict[Shape, Winner]:
    with Store.open(settings["TUNER_DB"], read_only=True) as store:
        return {each.shape: each for each in store.winners(NAME)}


def test_every_file_of_a_kernel_is_on_the_page(folder: Path) -> None:
    assert [*FILES] == ["kernel.py", "spec.py", "space.yaml", "op.py"]
    assert max(len(line) for text in (*FILES.values(), block("python")) for line in text.splitlines()) <= 120
    assert f"`{folder.name}/`" in PAGE
    assert "export TUNER_KERNEL_PATH=$PWD\n" in block("sh")  # as in these tests


def test_the_whole_space_fits_the_kernel(folder: Path) -> None:
    kernel = load_folder(folder)
    assert len(whole_shapes(kernel, load_fitting_space(kernel, None), [])) == 13


@pytest.mark.triton
def test_the_first_run_finds_winners(printed: str, folder: Path, settings: Mapping[str, str]) -> None:
    kernel, found = load_folder(folder), winners(settings)
    assert "x_row_stride is not searched: it saves no compile, and marking it narrows loads" in printed
    assert "6 evaluations added" in printed
    assert {*found} == {Shape(num_tokens=tokens, inner=4096) for tokens in (64, 4096)}
    environment = next(iter(found.values())).environment
    assert environment.evidence is Evidence.ESTIMATED
    assert all(each.variant != each.baseline == kernel.spec.baseline_variant for each in found.values())
    with Store.open(settings["TUNER_DB"], read_only=True) as store:
        stored = store.evaluations(kernel.name, kernel.source_digest, environment)
    assert [each.log for each in stored if each.status is not Status.PASSED] == []
    elements = sum(3 * shape.size("num_tokens") * shape.size("inner") for shape in kernel.spec.check_shapes)
    assert {each.agreement.elements for each in stored if each.agreement} == {elements}


@pytest.mark.triton
@pytest.mark.usefixtures("printed")
def test_a_lookup_answers_from_them(settings: Mapping[str, str]) -> None:
    winner = winners(settings)[Shape(num_tokens=4096, inner=4096)]
    assert winner.variant.config.label in output_of("lookup")
    assert "exact: tuned at this very shape, estimated for cuda:90" in output_of("lookup")
    assert tuner.lookup(NAME, num_tokens=4096, inner=4096).variant == winner.variant
    assert winner.variant.config.label in output_of("show")


@pytest.mark.triton
@pytest.mark.usefixtures("printed")
def test_a_server_calls_them(settings: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The page's own lines, launches noted instead of run."""
    known: dict[str, Any] = {"x": torch.zeros(3, 8192, dtype=torch.bfloat16)}
    with stub_driver() as stub:
        exec(block("python"), known)
        assert "any call: " in capsys.readouterr().out
        op, y = known["op"], known["y"]
        (launched,) = stub.launches
        plan = op.plans.of(None, {"inner": 4096})
        for tokens in (3, 40, 64, 300, 4096, 8192):
            assert plan.launcher(tokens).variant == tuner.lookup(NAME, num_tokens=tokens, inner=4096).variant
    assert launched.classes == {
        "x_ptr": "*bf16*",
        "y_ptr": "*bf16*",
        "num_tokens": "i32",
        "x_row_stride": "i32*",
        "INNER": "constexpr",
    }
    fake = load_kernel(NAME).host_function.fake(known["x"].to("meta"))
    assert (y.shape, y.stride(), y.dtype) == (fake.shape, fake.stride(), fake.dtype) == ((3, 4096), (4096, 1), y.dtype)
    with pytest.raises(tuner.errors.UserError, match=r"expected torch.bfloat16 \[num_tokens, 2 \* inner\]"):
        op(known["x"].float())


@np.errstate(all="ignore")  # as in the worker's own checks
def mismatches(settings: Mapping[str, str]) -> list[tuple[int, int, str]]:
    """In the interpreter: elements and mismatches of the op, where it was tuned and where not, and its variant."""
    patch_conversions()
    found = []
    with pytest.MonkeyPatch.context() as patch:
        use(settings, patch)
        patch.setattr(dispatch, "_empty", poisoned(dispatch._empty))
        op, spec = serving.load_op(NAME), load_kernel(NAME).spec
        for seed, shape in enumerate((*spec.check_shapes, Shape(num_tokens=40, inner=4096))):
            for make in (spec.make_inputs, *spec.edge_inputs.values()):
                inputs = make(shape, "cpu", seed)
                agreement = compare({"y": op(inputs["x"])}, spec.reference(inputs, shape), spec.tolerances)
                variant = op.plans.of(None, {"inner": shape["inner"]}).launcher(shape.size("num_tokens")).variant
                found.append((agreement.elements, agreement.mismatched, variant.digest))
    return found


@pytest.mark.triton
@pytest.mark.usefixtures("printed")
def test_what_the_op_returns_is_right(settings: Mapping[str, str], interpreter: WorkerPool) -> None:
    found = result(interpreter.submit(mismatches, settings, timeout_s=100.0))
    assert isinstance(found, list), found.log
    assert [elements for elements, _, _ in found] == [256] * 3 + [6600] * 3 + [40 * 4096] * 3
    assert [wrong for _, wrong, _ in found] == [0] * 9
    baseline = load_kernel(NAME).spec.baseline_variant.digest
    tuned = tuner.lookup(NAME, num_tokens=40, inner=4096).variant.digest
    assert [digest for _, _, digest in found] == [baseline] * 6 + [tuned] * 3
    assert tuned != baseline


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_one(words: list[str]) -> None:
    commands: Any = typer.main.get_command(app)
    assert commands.commands[words[0]].make_context(words[0], words[1:]).info_name == words[0]


def test_every_key_and_field_is_named() -> None:
    """The keys of a space, of its sections, and the fields of what a spec and an op are made of."""
    schema = Document.model_json_schema()
    sections = [schema, *(each for each in schema["$defs"].values() if "properties" in each)]
    keys = {key for section in sections for key in section["properties"]}
    assert {"kernel", "serving", "maxnreg", "timeout_s", "l2", "steps"} <= keys
    values = {value for each in schema["$defs"].values() for value in each.get("enum", [])}
    assert {"written", "pareto"} <= values
    types: tuple[Any, ...] = (KernelSpec, Dimension, Implementation, Config, SpecializationSet, HostFunction)
    fields = {field.name for each in types for field in dataclasses.fields(each)}
    text = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    coded = " ".join(re.findall(r"`[^`\n]+`", text))
    missing = [word for word in sorted(keys | values | fields) if not re.search(rf"\b{word}\b", coded)]
    assert missing == []


def test_what_is_required_and_what_is_allowed_is_told() -> None:
    """Where the code has a number or a list, the page has the same."""
    required = "`{}`, `{}` and `{}` are required".format(*Document.model_json_schema()["required"])
    told = [
        required,
        f"`num_warps`: powers of two up to {MAX_WARPS}",
        f"`maxnreg`: 1 to {MAX_REGISTERS}",
        f"`{{steps: {DEFAULT_STEPS}}}`",
        f"`trials` per shape ({BudgetSection().trials})",
        f"integers from `minimum` ({Dimension('any').minimum}) on",
        f"`{Objective.LATENCY}` (default)",
        f"(`{MeasurementSection().l2}`, default)",
    ]
    assert [each for each in told if each not in PAGE] == []
    assert REACH == 2.0  # "from half the smallest tuned size to twice the largest"


def test_links_and_targets_of_the_page_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links
    assert [each for each in links if not (Path(__file__).parents[1] / "docs" / each).is_file()] == []
    assert {*re.findall(r"--target (\S+)", PAGE)} <= {*KNOWN_TARGETS}
