"""What a watcher sees of a run: a bar on a terminal, lines elsewhere."""

from io import StringIO

import pytest
from cli_examples import ESTIMATED, EXAMPLE
from rich.console import Console

from tuner.catalog import load_folder
from tuner.cli.progress import watch
from tuner.records import Evaluation, Shape, Status, Timing
from tuner.session.events import Evaluated, Event, FinalStarted, FinalStep, RunStarted, ShapeSkipped

KERNEL = load_folder(EXAMPLE)
SHAPE = Shape(num_rows=3, columns=128)
SEARCHED: list[Event] = [
    RunStarted(ESTIMATED, 20, 0),
    *[
        Evaluated(Evaluation(KERNEL.spec.baseline_variant, SHAPE, Status.PASSED, timing=Timing(3.0, 3.0, 3.0, 1)), 3.0)
        for _ in range(20)
    ],
]
STEPS: list[Event] = [FinalStep(done, 14) for done in range(1, 15)]


def shown(*events: Event, terminal: bool) -> str:
    """What is on the console after these events; a terminal's text with every redraw."""
    text = StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, color_system=None, _environ={})
    with watch(console, KERNEL.spec.short_label) as listener:
        for event in events:
            listener(event)
    return text.getvalue()


def last_bar(*events: Event) -> str:
    """The bar as it is drawn last."""
    return [line for line in shown(*events, terminal=True).splitlines() if "left" in line][-1]


@pytest.mark.parametrize("done", [1, 5, 14])
def test_the_bar_goes_along_with_the_steps_of_the_final(done: int) -> None:
    bar = last_bar(*SEARCHED, FinalStarted(2), *STEPS[:done])
    assert f"{done}/14" in bar
    assert "deciding the winners at 2 shapes" in bar


def test_the_bar_counts_evaluations_before_the_final() -> None:
    assert "7/20" in last_bar(*SEARCHED[:8])
    assert "num_rows=3: best 3.0 us (estimated)" in last_bar(*SEARCHED[:8])


def test_a_step_keeps_what_the_bar_says() -> None:
    reason = ShapeSkipped(SHAPE, "the final was lost")
    text = shown(*SEARCHED, FinalStarted(2), STEPS[0], reason, STEPS[1], terminal=True)
    assert "no winner at num_rows=3: the final was lost" in text
    assert "2/14" in text


def test_lines_tell_of_the_final_once_and_not_of_its_steps() -> None:
    before = shown(*SEARCHED, FinalStarted(2), terminal=False)
    assert before.splitlines()[-1] == "deciding the winners at 2 shapes"
    assert shown(*SEARCHED, FinalStarted(2), *STEPS, terminal=False) == before
