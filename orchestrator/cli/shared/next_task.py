"""The options of a sweep over the next task of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.core.errors import UsageError

FromModel = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="Search the update of this model alone: trials begin from it and learn --task.",
    ),
]
NextData = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="With --from: the examples of the new task, as for update.")
]
NextName = Annotated[str | None, typer.Option("--task", metavar="NAME", help="With --from: the name of the new task.")]
NextTestData = Annotated[
    str | None, typer.Option("--test-data", metavar="DATA", help="With --from: held-out examples of the new task.")
]
FromRun = Annotated[
    str | None,
    typer.Option(
        "--from-run",
        metavar="RUN",
        help="Learn as this run of sweep --from, on the same model and data, recommends.",
    ),
]


def base_of(
    model: str | None, data: str | None, task: str | None, test_data: str | None, spec: Path | None, preset: str | None
) -> dict[str, Any] | None:
    """Return the fields of a sweep over the next task of a model; None if none is asked for.

    Raises:
        UsageError: if an option is missing, or has no effect.
    """
    named = {"--data": data, "--task": task, "--test-data": test_data}
    if model is None:
        if spare := [name for name, value in named.items() if value is not None]:
            raise UsageError(f"{', '.join(spare)}: these say what the model of --from learns; give --from MODEL too")
        return None
    if missing := [name for name in ("--data", "--task") if named[name] is None]:
        raise UsageError(f"--from: the update of a model needs {' and '.join(missing)}; give what it is to learn")
    if preset is not None:
        raise UsageError("--preset: has no effect beside --from, whose sweep is that of the model; drop one")
    assert data is not None
    assert task is not None
    from orchestrator.champions.next_spec import next_spec

    return next_spec(model, data, task, test_data)
