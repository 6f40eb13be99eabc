"""The commands `predict` and `update`, and `export` of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.shared.next_task import FromRun
from orchestrator.cli.shared.options import DataDir, Plugins
from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.text import counted

if TYPE_CHECKING:
    from orchestrator.champions.exporting.wanted import Wanted

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder that export or update wrote.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


def export_a_model(
    run: str, place: str, wanted: Wanted, data_dir: Path, threads: int, plugins: list[str], onnx: bool
) -> None:
    """Write a model of a run and say what it is."""
    from orchestrator import api
    from orchestrator.core.placement import Placement
    from orchestrator.report.console import make_console
    from orchestrator.report.model_view import render_model
    from orchestrator.spec.loading import load_plugins

    console = make_console()
    opened = api.open_run(run, cached=True)
    load_plugins(name for name in plugins if name not in opened.spec.own_networks)
    found = api.export_model(opened, place, wanted, data_dir, Placement(threads=threads), console.print, plugins)
    files = [str(found.place)]
    if onnx:
        from orchestrator.champions.exporting.onnx_export import export_onnx

        files += map(str, export_onnx(api.load_model(found.place, plugins), found.place))
    console.print(render_model(found.card, found.notes))
    console.print(f"Model: {place}")


def predict(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A table (Parquet or CSV), or a folder of images, as it was trained on."),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="Write the answers here: .parquet or .csv.")
    ],
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="The task of all examples, if the model must know it.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Answer new examples with a model: a class and the probability of each, a row an example."""
    from orchestrator import api
    from orchestrator.champions.prediction import table_bytes, with_notes
    from orchestrator.report.exports.writing import write_export

    loaded = api.load_model(model, plugins or [])
    found, notes = with_notes(loaded, data, task)
    write_export(output, table_bytes(found, output))
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    counts = found["class"].value_counts()
    print(f"{counted(len(found), 'example')}: " + ", ".join(f"{n} {name}" for name, n in counts.head(10).items()))
    print(f"written to {output}")


def update(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Option("--data", metavar="DATA", help="The examples of the new task: a table, or a folder CLASS/IMAGE."),
    ],
    task: Annotated[str, typer.Option(metavar="NAME", help="The name of the new task, such as 2023Q3.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FOLDER", help="The folder of the new model.")],
    test_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Held-out examples of the new task; by default a share of --data."),
    ] = None,
    keep_evaluation: Annotated[
        bool, typer.Option("--keep-evaluation", help="Keep all held-out examples in the folder, for later updates.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
    threads: Threads = 1,
    plugins: Plugins = None,
    from_run: FromRun = None,
) -> None:
    """Teach a model the next task with what its method kept, and measure it on every task."""
    from orchestrator import api
    from orchestrator.core.placement import Placement
    from orchestrator.report.console import make_console
    from orchestrator.report.model_view import render_model

    console = make_console()
    found = api.update_model(
        model, data, task, output, data_dir, test_data, keep_evaluation, plugins or [], Placement(threads=threads),
        console.print, from_run,
    )  # fmt: skip
    console.print(render_model(found.card, found.notes))
    console.print(f"Model: {output}")
