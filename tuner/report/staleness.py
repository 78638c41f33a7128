"""Whether stored winners still hold."""

from tuner.catalog import Kernel, load_kernel
from tuner.errors import UnknownNameError, UserError
from tuner.runtime import WinnerTable


def stale_reasons(table: WinnerTable, kernel: Kernel | None = None) -> tuple[str, ...]:
    """Why the rows of a stored table do not hold for this machine or this source, for people; empty when they do.

    `kernel` is the table's kernel as it is now; None looks for it by name. Loads torch and Triton.
    """
    from tuner.measure.environment import environment_here

    where = table.environment
    return (*_source_reasons(table, kernel), *where.differences(environment_here(where)))


def _source_reasons(table: WinnerTable, kernel: Kernel | None) -> list[str]:
    try:
        found = kernel or load_kernel(table.kernel)
    except UnknownNameError:
        return ["no kernel of this name is found"]
    except UserError as error:
        return [f"the kernel cannot be loaded: {error.message}"]
    return [] if found.source_digest == table.source_digest else ["the kernel's source changed"]
