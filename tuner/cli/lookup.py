"""`tuner lookup`: which variant to run at a shape."""

from typing import Annotated

import typer

from tuner import settings
from tuner.cli.options import (
    DatabaseOption,
    JsonOption,
    KernelArgument,
    find_kernel,
    parse_pairs,
    parse_value,
    print_json,
    terminal,
)
from tuner.errors import UserError


def lookup(
    kernel: KernelArgument,
    shape: Annotated[list[str], typer.Argument(metavar="DIM=VALUE...", help="The shape, as in num_tokens=512.")],
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which variant of KERNEL to run at a shape, where that comes from and what stands behind it.

    The answer is the one that `tuner.lookup` gives in Python. Its origin is `exact` for a tuned shape, `bucket` for
    the nearest tuned one, `family` for another device of the same architecture, else `baseline`. Where its winner comes
    from other versions than those here, a line says which.

    Example:

        tuner lookup fused_inv_rope_fp8_quant num_tokens=512 num_heads=64 n_groups=8
    """
    import torch  # noqa: F401 - so that the device is seen

    from tuner import api
    from tuner.report import lookup_report, speedup_text, time_text
    from tuner.runtime.lookup import Origin, no_winner
    from tuner.session.request import checked_grid
    from tuner.store import Store

    found = find_kernel(kernel)
    values = {name: parse_value(value) for name, value in parse_pairs(shape, what="dimension").items()}
    checked_grid(found, found.spec.shape(values))
    if db is not None and Store.is_missing(db):
        raise UserError(f"There is no store at {db}.", hint="Run `tuner run` first, or leave --db out.")
    device, target = api.this_device()
    answer = api.look_up(found, api.winner_tables(found, db), values, device, target)
    if answer.origin is Origin.BASELINE and settings.is_strict():
        raise no_winner(found.name, answer.shape, target)
    if as_json:
        print_json(lookup_report(answer))
        return
    console = terminal()
    console.print(f"shape       {answer.shape.label}")
    console.print(f"variant     {answer.config.label}")
    console.print(f"do_not_specialize  {answer.specialization.label}")
    console.print(f"origin      {answer.origin}: {answer.explanation}")
    if answer.stale:
        console.print(f"stale       {'; '.join(answer.stale)}", markup=False)
    if answer.winner:
        winner = answer.winner
        unit = f"us {answer.evidence}, baseline {time_text(winner.baseline_timing)} us"
        whose = "" if answer.variant == winner.variant else "of the winner at the tuned shape: "
        console.print(f"evidence    {whose}{time_text(winner.timing)} {unit}")
        console.print(f"speedup     {speedup_text(winner)}; {winner.reason}", markup=False)
