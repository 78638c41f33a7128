"""Shows a run as it goes: a live bar on a terminal, plain lines when piped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tuner.records import Evaluation, Evidence, Shape, Status
from tuner.report.run_tables import dropped_text
from tuner.session.events import (
    CandidateDropped,
    Evaluated,
    Event,
    FinalStarted,
    FinalStep,
    Listener,
    RunStarted,
    ShapeSkipped,
    SpaceExhausted,
    WaitingForDevice,
    WarmStarting,
    WinnerChosen,
)

_PLAIN_EVERY = 10

Label = Callable[[Shape], str]


@contextmanager
def watch(console: Console, label: Label) -> Iterator[Listener]:
    """A listener that draws on the console while the context is open; `label` names a shape."""
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        ) as progress:
            yield _LiveView(progress, label)
    else:
        yield _PlainView(console, label)


class _LiveView:
    def __init__(self, progress: Progress, label: Label) -> None:
        self._progress = progress
        self._label = label
        self._unit = "us"
        self._task = progress.add_task("starting workers", total=None)

    def __call__(self, event: Event) -> None:
        progress = self._progress
        match event:
            case WaitingForDevice() | WarmStarting():
                progress.update(self._task, description=_meanwhile(event))
            case RunStarted():
                self._unit = _unit(event)
                progress.console.print(_opening(event))
                progress.update(self._task, total=event.planned, completed=event.stored, description="searching")
            case Evaluated():
                progress.update(self._task, advance=1, description=_best(event, self._label, self._unit))
                if event.evaluation.status is not Status.PASSED:
                    progress.console.print(_failure(event.evaluation, self._label), markup=False, highlight=False)
            case SpaceExhausted():
                progress.console.print(_exhausted(event, self._label))
                progress.update(self._task, advance=event.missing)
            case FinalStarted():
                progress.remove_task(self._task)
                self._task = progress.add_task(_final(event), total=None)
            case FinalStep():
                progress.update(self._task, completed=event.done, total=event.total)
            case WinnerChosen():
                progress.update(self._task, description=f"winner chosen at {self._label(event.winner.shape)}")
            case ShapeSkipped() | CandidateDropped():
                progress.console.print(_left_out(event, self._label), markup=False, highlight=False)


class _PlainView:
    def __init__(self, console: Console, label: Label) -> None:
        self._console = console
        self._label = label
        self._unit = "us"
        self._done = 0
        self._planned = 0

    def __call__(self, event: Event) -> None:
        match event:
            case WaitingForDevice() | WarmStarting():
                self._print(_meanwhile(event))
            case RunStarted():
                self._unit = _unit(event)
                self._done, self._planned = event.stored, event.planned
                self._print(_opening(event))
            case Evaluated():
                self._done += 1
                if event.evaluation.status is not Status.PASSED:
                    self._print(_failure(event.evaluation, self._label))
                elif self._done % _PLAIN_EVERY == 0:
                    self._print(f"{self._done}/{self._planned} {_best(event, self._label, self._unit)}")
            case SpaceExhausted():
                self._print(_exhausted(event, self._label))
            case ShapeSkipped() | CandidateDropped():
                self._print(_left_out(event, self._label))
            case FinalStarted():
                self._print(_final(event))
            case FinalStep() | WinnerChosen():
                pass  # the table of winners follows

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _opening(event: RunStarted) -> str:
    stored = f", {event.stored} of them stored already" if event.stored else ""
    return f"{event.environment.label}: {event.planned} evaluations{stored}"


def _meanwhile(event: WaitingForDevice | WarmStarting) -> str:
    if isinstance(event, WaitingForDevice):
        return "another run has the GPU; waiting until it is free"
    return "compiling configs, to try those of the best estimates first"


def _unit(event: RunStarted) -> str:
    return "us" if event.environment.evidence is Evidence.MEASURED else "us (estimated)"


def _best(event: Evaluated, label: Label, unit: str) -> str:
    best = "none passed yet" if event.best_us is None else f"best {event.best_us:.1f} {unit}"
    return f"{label(event.evaluation.shape)}: {best}"


def _failure(evaluation: Evaluation, label: Label) -> str:
    where = f"{evaluation.variant.config.label} at {label(evaluation.shape)}"
    return f"{evaluation.status}: {where}: {evaluation.reason[:200]}"


def _exhausted(event: SpaceExhausted, label: Label) -> str:
    return f"the space is exhausted at {label(event.shape)}"


def _final(event: FinalStarted) -> str:
    return f"deciding the winners at {event.shapes} shapes"


def _left_out(event: ShapeSkipped | CandidateDropped, label: Label) -> str:
    if isinstance(event, CandidateDropped):
        return dropped_text(event.dropped.label, event.dropped.reason)
    return f"no winner at {label(event.shape)}: {event.reason}"
