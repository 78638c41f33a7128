"""`tuner export-config`: winners as a file that a server reads."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import DatabaseOption, KernelArgument, database, find_kernel, terminal
from tuner.cli.show import BoundOption, WorkloadOption
from tuner.errors import UserError
from tuner.export import ExportedFile, Format, export
from tuner.records.portfolio import REGRET_BOUND


def export_config(
    kernel: KernelArgument,
    form: Annotated[
        Format,
        typer.Option("--format", help="json, yaml: the winner table; vllm, sglang: config files; python: a module."),
    ] = Format.JSON,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A file, or a folder (no suffix) for the usual names."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The GPU whose winners to write, or the target of estimates, if of several."),
    ] = None,
    bound: BoundOption = REGRET_BOUND,
    workload: WorkloadOption = None,
    db: DatabaseOption = None,
) -> None:
    """Write the winners of KERNEL; measured ones where there are any, else estimates, marked as such.

    They are of one GPU, of each shape the newest, whatever the versions of driver and software; standard error says
    what the store has besides.

    json and yaml also hold the portfolio: the fewest variants within `--bound` of the winners, and from which size to
    which each runs. `tuner.lookup` then answers with these (see `tuner show --portfolio`). `--format vllm` follows
    vLLM's tuned-config files: one per fixed dimensions (those at their default are not named) and device, which has for
    each num_tokens the keywords of its own winner's launch; a second one, ending in .variants.json, says which
    implementation they are for, and the rest. `--format sglang` writes the same to configs/triton_<version>/.
    `--format python` writes one module that stands alone: kernels, variants and the op; it needs torch and triton only.

    Examples:

        tuner export-config fused_inv_rope_fp8_quant > winners.json

        tuner export-config fused_inv_rope_fp8_quant --format vllm -o configs/
    """
    from tuner.consolidation import consolidate
    from tuner.export.selection import evaluations_behind, export_table, left_out
    from tuner.store import Store
    from tuner.workload import load_workload

    found = find_kernel(kernel)
    weights = load_workload(workload) if workload else None
    with Store.open(database(db), read_only=True) as store:
        winners = store.winners(found.name)
        table = export_table(found, winners, device)
        evaluations = evaluations_behind(table, store)
    if rest := left_out(table, winners):
        terminal(stderr=True).print(f"Winners left out: {rest}.", markup=False)
    if form not in (Format.VLLM, Format.SGLANG) and len(found.spec.dynamic_dimensions) == 1:
        table = replace(table, portfolio=consolidate(found, table, evaluations, bound, weights).portfolio)
    files = export(table, form, found)
    if output is None:
        if len(files) > 1:
            raise UserError(f"{form} makes {len(files)} files.", hint="Name a folder with `-o FOLDER/`.")
        sys.stdout.write(files[0].text)
        return
    for path in _write(files, output):
        sys.stdout.write(f"{path}\n")


def _write(files: list[ExportedFile], output: Path) -> list[Path]:
    if len(files) > 1 and output.suffix and not output.is_dir():
        raise UserError(f"{len(files)} files are to be written, and {output} names one.", hint="Name a folder.")
    into_folder = output.is_dir() or output.suffix == "" or len(files) > 1
    paths = [output / each.name for each in files] if into_folder else [output]
    try:
        for path, each in zip(paths, files, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(each.text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}.") from error
    return paths
