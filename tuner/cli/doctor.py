"""`tuner doctor`: what this machine can do, and what is missing."""

from tuner.cli.options import DatabaseOption, JsonOption, database, print_json, terminal


def doctor(db: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Check versions, device, target and store; say what is missing and what to do.

    Exits with 1 when something that a run needs is broken.
    """
    import typer

    from tuner.report.diagnosis import diagnose

    findings = diagnose(database(db))
    if as_json:
        print_json([{"name": each.name, "ok": each.ok, "found": each.found, "todo": each.todo} for each in findings])
    else:
        console = terminal()
        for each in findings:
            sign = "[green]ok[/green]     " if each.ok else "[red]missing[/red]"
            console.print(f"{sign} {each.name:<10} {each.found}")
            if each.todo:
                console.print(f"                   {each.todo}")
    if not all(each.ok for each in findings):
        raise typer.Exit(1)
