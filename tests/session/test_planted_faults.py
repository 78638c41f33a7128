"""Faulty variants end in their own status, each, and leave the right ones alone; without a GPU."""

from pathlib import Path

import pytest

from tuner.catalog import load_folder
from tuner.records import DEFAULT_TARGET, Status
from tuner.search import Method
from tuner.session import RunRequest, load_fitting_space, run, whole_shapes
from tuner.store import Store

FOLDER = Path(__file__).parents[1] / "examples" / "planted_faults"
# Left out are the two that only a timeout ends, and the device assertion, which the interpreter does not see.
EXPECTED = {
    "right": Status.PASSED,
    "wrong_element": Status.WRONG_OUTPUT,
    "wrong_last_tile": Status.WRONG_OUTPUT,
    "wrong_scale": Status.WRONG_OUTPUT,
    "wrong_when_huge": Status.WRONG_OUTPUT,
    "wrong_elsewhere": Status.WRONG_OUTPUT,
    "not_a_number": Status.WRONG_OUTPUT,
    "partial_write": Status.WRONG_OUTPUT,
    "out_of_bounds": Status.CRASHED,
    "compile_error": Status.COMPILE_ERROR,
    "too_much_shared": Status.OUT_OF_RESOURCES,
    "crash_at_import": Status.CRASHED,
}


@pytest.mark.triton
def test_each_fault_ends_in_its_own_status_and_none_wins(tmp_path: Path) -> None:
    text = (FOLDER / "space.yaml").read_text()
    for fault in ("infinite_loop", "endless_compile", "device_assert"):
        text = text.replace(f"  {fault}:\n    options: {{num_warps: [4]}}\n", "")
    path = tmp_path / "space.yaml"
    path.write_text(text)
    kernel = load_folder(FOLDER)
    space = load_fitting_space(kernel, path)
    shapes = whole_shapes(kernel, space, [{"num_rows": 64}])
    request = RunRequest(kernel, space, shapes, DEFAULT_TARGET, trials=30, method=Method.GRID, jobs=2)
    with Store.open(tmp_path / "store.db") as store:
        summary = run(request, store, lambda event: None)
        stored = store.evaluations(kernel.name, kernel.source_digest, summary.environment)
    assert {each.variant.config.implementation: each.status for each in stored} == EXPECTED
    assert all(each.log for each in stored if each.status is not Status.PASSED)
    assert [winner.variant.config.implementation for winner in summary.winners] == ["right"]
