"""The `tuner` command: gathers the commands and turns errors into messages and exit codes."""

import errno
import os
import sys

import typer
from rich.console import Console

from tuner.cli import (
    doctor,
    emit,
    export_config,
    import_config,
    kernels,
    lookup,
    prebuild,
    replay,
    run,
    show,
    specialize,
    workload,
)
from tuner.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="tuner",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Finds the fastest variant of a Triton kernel for each shape: tile sizes, warps, stages, and which arguments "
        "Triton may specialize on.\n\n"
        "With a GPU, variants are checked and timed on it; without one, they are compiled for a target and estimated. "
        "Start with [bold]tuner doctor[/bold], then [bold]tuner run fused_inv_rope_fp8_quant[/bold]."
    ),
)
app.command("run")(run.run)
app.command("show")(show.show)
app.command("lookup")(lookup.lookup)
app.command("export-config")(export_config.export_config)
app.command("import")(import_config.import_config)
app.command("emit")(emit.emit)
app.command("kernels")(kernels.kernels)
app.command("prebuild")(prebuild.prebuild)
app.command("replay")(replay.replay)
app.command("specialize")(specialize.specialize)
app.add_typer(workload.app, name="workload")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; exits with 2 for an error that the user can mend and with 130 for Ctrl-C."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except UserError as error:
        console = Console(stderr=True)
        console.print(f"[red]Error:[/red] {_plain(error.message)}", soft_wrap=True, highlight=False)
        if error.hint:
            console.print(f"Try: {_plain(error.hint)}", soft_wrap=True, highlight=False)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:  # Typer has turned Ctrl-C into it
            Console(stderr=True).print("Interrupted.")
        raise
    except BrokenPipeError:
        # The reader of a pipe is gone (`tuner show | head`).
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _drop_output()
        Console(stderr=True).print(f"[red]Error:[/red] The output cannot be written: {error.strerror}.")
        sys.exit(EXIT_USER_ERROR)


def _drop_output() -> None:
    """Send what standard output still holds nowhere, so that Python does not complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
