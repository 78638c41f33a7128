"""`tuner kernels`: what can be tuned."""

from tuner.cli.options import JsonOption, print_json, terminal


def kernels(as_json: JsonOption = False) -> None:
    """List the kernels that can be tuned: bundled ones and those in the folders of $TUNER_KERNEL_PATH."""
    from tuner.catalog import kernel_names, load_folder

    found = [load_folder(folder) for folder in kernel_names().values()]
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "summary": each.spec.summary,
                    "folder": str(each.folder),
                    "space": str(each.space_path),
                    "dimensions": [dimension.name for dimension in each.spec.dimensions],
                    "implementations": [implementation.name for implementation in each.spec.implementations],
                }
                for each in found
            ]
        )
        return
    console = terminal()
    for each in found:
        console.print(f"[bold]{each.name}[/bold]  {each.spec.summary}")
        dims = [
            dimension.name if dimension.default is None else f"{dimension.name}={dimension.default}"
            for dimension in each.spec.dimensions
        ]
        console.print(f"  dimensions       {', '.join(dims)}")
        console.print(f"  implementations  {', '.join(each.name for each in each.spec.implementations)}")
        console.print(f"  folder           {each.folder}")
