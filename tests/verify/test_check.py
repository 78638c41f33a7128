"""Cases, the random one and every edge, and how a variant is held against them up to the first wrong one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.catalog import Bounds, Dimension, Implementation, Kernel, KernelSpec, Launch, Tensors
from tuner.compile.module import LoadedVariant
from tuner.errors import UserError
from tuner.records import Agreement, Config, FrozenMapping, Shape, SpecializationSet
from tuner.verify import check
from tuner.verify.check import check_cases, make_case, make_cases

SHAPE = Shape(count=6)
CONFIG = Config("double", FrozenMapping(), FrozenMapping())


def maker(factor: float) -> Any:
    """Of `x` [count] fp32: the seed, times a factor."""
    return lambda shape, device, seed: {"x": torch.full((shape.size("count"),), float(seed * factor), device=device)}


def reference(inputs: Tensors, shape: Shape) -> Mapping[str, torch.Tensor | Bounds]:
    """Doubled; where that is zero anything up to 1 is right."""
    double = inputs["x"] * 2
    return {"y": Bounds(double, double + (double == 0).float())}


SPEC = KernelSpec(
    name="double",
    summary="Doubles.",
    dimensions=(Dimension("count"),),
    implementations=(Implementation("double", "kernel.py", "double"),),
    baseline=CONFIG,
    baseline_specialization=SpecializationSet(),
    make_inputs=maker(1),
    edge_inputs=FrozenMapping(huge=maker(1e30), zeros=maker(0)),
    make_outputs=lambda shape, device: {"y": torch.empty(shape.size("count"), device=device)},
    launch=lambda inputs, outputs, shape, config: Launch((1,), {**inputs, **outputs}),
    reference=reference,
    bytes_moved=lambda shape: 8,
    flops=lambda shape: 1,
    check_shapes=(SHAPE,),
)
KERNEL = Kernel(Path("double"), SPEC)


@dataclass(frozen=True)
class Double(LoadedVariant):
    """Runs in Python: saturates at `limit`, leaves the elements from `written` on as they are."""

    function: Any = None
    options: Any = None
    limit: float = torch.inf
    written: int = 6

    def run(self, launch: Launch) -> None:
        x, y = launch.arguments["x"], launch.arguments["y"]
        y[: self.written] = (x * 2).clamp(max=self.limit)[: self.written]


def checked(variant: LoadedVariant, kernel: Kernel = KERNEL) -> Agreement:
    cases, outputs = make_cases(kernel, SHAPE, "cpu", 3), kernel.spec.make_outputs(SHAPE, "cpu")
    return check_cases(kernel, variant, CONFIG, SHAPE, cases, outputs)


def test_the_random_case_comes_first_and_every_edge_after_it() -> None:
    cases = make_cases(KERNEL, SHAPE, "cpu", 3)
    assert [case.name for case in cases] == ["random", "huge", "zeros"]
    assert [case.inputs["x"][0].item() for case in cases] == [3, torch.tensor(3e30), 0]
    for case in cases:
        wanted = case.expected["y"]
        assert isinstance(wanted, Bounds)
        assert torch.equal(wanted.low, case.inputs["x"] * 2)


def test_without_edges_there_is_the_random_case_alone() -> None:
    kernel = replace(KERNEL, spec=replace(SPEC, edge_inputs=FrozenMapping()))
    assert [case.name for case in make_cases(kernel, SHAPE, "cpu", 3)] == ["random"]


def test_elements_are_added_up_over_the_cases() -> None:
    assert checked(Double()) == Agreement(elements=18, mismatched=0, undecided=6)


def test_wrong_on_random_inputs_ends_there() -> None:
    assert checked(Double(limit=5)) == Agreement(6, 6, 0, "on random inputs, y: flat element 0 is 5.0, expected 6.0")


def test_wrong_on_an_edge_names_it() -> None:
    assert checked(Double(limit=100)) == Agreement(
        12, 6, 0, "on huge inputs, y: flat element 0 is 100.0, expected 5.999999788053342e+30"
    )


def test_what_another_case_left_does_not_count() -> None:
    """Without poison the two elements would hold the right zeros of the case before."""
    zeros = make_case(KERNEL, SHAPE, "zeros", maker(0)(SHAPE, "cpu", 0))
    outputs = {"y": torch.zeros(6)}
    found = check_cases(KERNEL, Double(written=4), CONFIG, SHAPE, [zeros, zeros], outputs)
    assert (found.elements, found.mismatched) == (6, 2)
    assert found.detail == "on zeros inputs, y: flat element 4 is nan, expected 0.0 to 1.0"


def test_without_a_reference_the_baseline_says_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "load_variant", lambda kernel, variant: Double(limit=100))
    kernel = replace(KERNEL, spec=replace(SPEC, reference=None))
    assert checked(Double(limit=100), kernel) == Agreement(18, 0, 0, check._NO_REFERENCE)
    assert "held against the baseline's output" in check._NO_REFERENCE
    assert (
        checked(Double(), kernel).detail == "on huge inputs, y: flat element 0 is 5.999999788053342e+30, expected 100.0"
    )


def test_what_is_not_written_counts_where_poison_might_be_right() -> None:
    """All ones are right here, and true; a partial write of either must not pass."""
    for right in (torch.full((6,), -1), torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)):
        spec = replace(SPEC, reference=lambda inputs, shape, right=right: {"y": right}, edge_inputs=FrozenMapping())
        case = make_case(replace(KERNEL, spec=spec), SHAPE, "random", maker(0)(SHAPE, "cpu", 0))

        class Writes(Double):
            def run(self, launch: Launch, right: torch.Tensor = right) -> None:
                launch.arguments["y"][: self.written] = right[: self.written]

        for written, wrong in ((6, 0), (4, 2)):
            outputs = {"y": torch.empty_like(right)}
            found = check_cases(KERNEL, Writes(written=written), CONFIG, SHAPE, [case], outputs)
            assert found.mismatched == wrong


@dataclass(frozen=True)
class Alters(Double):
    """Is right, and then does something to its input."""

    how: Any = None

    def run(self, launch: Launch) -> None:
        super().run(launch)
        self.how(launch.arguments["x"])


def add_at(place: int) -> Any:
    return lambda x: x[place : place + 1].add_(1)


@pytest.mark.parametrize("at", [0, 5])
def test_a_variant_that_writes_to_its_input_is_wrong_however_right_its_output_is(at: int) -> None:
    """What it wrote there would make the next ones look wrong."""
    found = checked(Alters(how=add_at(at)))
    assert (found.mismatched, found.detail) == (1, "on random inputs, it wrote to its input x")
    assert found.difference == "on random inputs, it wrote to its input x"
    assert (
        checked(Double(limit=5)).difference
        == "6 of 6 elements differ; on random inputs, y: flat element 0 is 5.0, expected 6.0"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(12.0).reshape(6, 2),
        lambda: torch.arange(12, dtype=torch.float64),
        lambda: torch.arange(24.0).bfloat16().reshape(6, 4)[:, 1:],
        lambda: torch.arange(6).to(torch.uint8),
        lambda: torch.arange(12.0).reshape(2, 6).T,
    ],
    ids=["rows", "one dimension", "strided", "bytes", "columns"],
)
@pytest.mark.parametrize("chunk", [1 << 26, 4, 1])
def test_an_input_whose_rows_change_places_is_not_as_it_was(
    make: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.verify.agreement._CHUNK", chunk)
    x = make()
    before = check._sums({"x": x})
    assert check._sums({"x": x}) == before
    x.copy_(x.flip(0))
    assert check._sums({"x": x}) != before
    x.copy_(x.flip(0))
    assert check._sums({"x": x}) == before
    x[-1:] += 1
    assert check._sums({"x": x}) != before


@pytest.mark.parametrize("at", range(4))
def test_a_change_of_the_topmost_bit_shows(at: int) -> None:
    x = torch.ones(4, dtype=torch.float64)
    before = check._sums({"x": x})
    x[at] = -1
    assert check._sums({"x": x}) != before


def test_inputs_of_any_size_have_a_sum() -> None:
    inputs = {"none": torch.empty(0, 4), "scalar": torch.tensor(3.0), "flag": torch.tensor(True)}
    assert check._sums(inputs) == {"none": 0, "scalar": int(torch.tensor(3.0).view(torch.int32)), "flag": 1}


def test_a_reference_may_do_with_the_mapping_what_it_likes() -> None:
    def reference(inputs: dict[str, torch.Tensor], shape: Shape) -> dict[str, torch.Tensor]:
        inputs["more"] = inputs.pop("x") * 2
        return {"y": inputs["more"]}

    kernel = replace(KERNEL, spec=replace(SPEC, reference=reference))
    assert list(make_case(kernel, SHAPE, "random", KERNEL.spec.make_inputs(SHAPE, "cpu", 0)).inputs) == ["x"]


def test_a_reference_that_writes_to_an_input_is_an_error() -> None:
    def in_place(inputs: Tensors, shape: Shape) -> Mapping[str, torch.Tensor]:
        return {"y": inputs["x"].mul_(2)}

    with pytest.raises(UserError, match=r"The reference of double writes to its input x"):
        checked(Double(), replace(KERNEL, spec=replace(SPEC, reference=in_place)))


def test_a_baseline_that_stands_for_the_reference_and_writes_to_an_input_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "load_variant", lambda kernel, variant: Alters(how=add_at(0)))
    with pytest.raises(
        UserError, match=r"The baseline of double writes to its input x.\n.*in place cannot be tuned yet"
    ):
        checked(Double(), replace(KERNEL, spec=replace(SPEC, reference=None)))


def test_what_the_baseline_leaves_unwritten_is_no_accident_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros that happened to lie there would be right."""
    monkeypatch.setattr(check, "load_variant", lambda kernel, variant: Double(written=4))
    spec = replace(SPEC, reference=None, make_outputs=lambda shape, device: {"y": torch.zeros(6)})
    case = make_case(replace(KERNEL, spec=spec), SHAPE, "random", maker(1)(SHAPE, "cpu", 1))
    wanted = case.expected["y"]
    assert isinstance(wanted, torch.Tensor)
    assert wanted.isnan().tolist() == [False] * 4 + [True] * 2
