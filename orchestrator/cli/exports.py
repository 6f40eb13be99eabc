"""The commands `export`, `compare` and `ls`: what finished runs are used for."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from orchestrator.champions.exporting.wanted import Wanted
from orchestrator.cli.models import Threads, export_a_model
from orchestrator.cli.shared.answers import missing
from orchestrator.cli.shared.exits import EXIT_INCOMPLETE
from orchestrator.cli.shared.options import DataDir, Plugins, RunArgument
from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import UsageError

Format = Literal["latex", "markdown", "csv", "xlsx", "json"]


def export(
    run: RunArgument,
    format: Annotated[
        Format | None,
        typer.Option("--format", help="A table of methods and scenarios, on the test split, in this format."),
    ] = None,
    methods_paragraph: Annotated[
        bool, typer.Option("--methods-paragraph", help="The protocol in words, for a paper's methods section.")
    ] = False,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="The literature of the run's methods, for BibTeX.")] = False,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Show this metric or cost; repeat for several. By default the objective and every limited metric.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PLACE",
            help="The folder of the model, or the file of anything else, which is printed by default.",
        ),
    ] = None,
    scenario: Annotated[str | None, typer.Option(help="Model: of this scenario, if the run has several.")] = None,
    method: Annotated[str | None, typer.Option(help="Model: of this method. By default the recommended one.")] = None,
    suggestion: Annotated[
        int | None, typer.Option(min=0, help="Model: of this suggestion. By default the chosen one.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Model: of this confirm seed. By default the median one.")
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Model: a network for each confirm seed.")] = False,
    with_test: Annotated[bool, typer.Option("--with-test", help="Model: train on the test split too.")] = False,
    more_tasks: Annotated[
        int | None, typer.Option(min=0, help="Model: so many tasks will follow, for methods that plan ahead.")
    ] = None,
    keep_evaluation: Annotated[
        bool, typer.Option("--keep-evaluation", help="Model: keep the held-out examples in its folder.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Model: write it as ONNX too.")] = False,
    data_dir: DataDir = DATA_DIR,
    threads: Threads = 1,
    plugins: Plugins = None,
) -> None:
    """Write the model of a run; or its answer for a paper or a spreadsheet, its protocol in words, its literature."""
    of_model = Wanted(scenario, method, suggestion, seed, ensemble, with_test, more_tasks, keep_evaluation)
    if _check_export(format, methods_paragraph, bibtex, metrics, output, of_model, onnx) and output is not None:
        export_a_model(run, output, of_model, data_dir, threads, plugins or [], onnx)
    else:
        _export_text(run, format, methods_paragraph, metrics, output, plugins)


def _export_text(
    run: str,
    format: Format | None,
    methods_paragraph: bool,
    metrics: list[str] | None,
    output: str | None,
    plugins: list[str] | None,
) -> None:
    """Write what is no model."""
    from orchestrator import api
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    opened = api.open_run(run, cached=True)
    if format is None:
        from orchestrator.report.exports.bibliography import render_bibtex
        from orchestrator.report.exports.methods_text import methods_paragraph as paragraph

        _write(paragraph(opened.spec) if methods_paragraph else render_bibtex(opened.spec.known_methods), output)
        return
    from orchestrator.report.exports.exporting import export_table

    answer = opened.answer()
    _write(export_table(answer, format, metrics or []), output)
    if answer.n_missing:
        typer.echo(f"note: {missing(answer.n_missing)}, so this table is not final", err=True)
        raise typer.Exit(EXIT_INCOMPLETE)


def _check_export(
    format: Format | None,
    methods_paragraph: bool,
    bibtex: bool,
    metrics: list[str] | None,
    output: str | None,
    of_model: Wanted,
    onnx: bool,
) -> bool:
    """Refuse options that do not go together, and return whether a model is asked for.

    Raises:
        UsageError: with every fault.
    """
    faults = []
    n_asked = (format is not None) + methods_paragraph + bibtex
    if n_asked > 1:
        faults.append(
            "export: expected one of --format latex|markdown|csv|xlsx|json, --methods-paragraph or --bibtex, got "
            f"{n_asked} of them"
        )
    if n_asked == 0 and output is None:
        faults.append(
            "export: name the folder of the model with -o FOLDER; or ask for --format latex|markdown|csv|xlsx|json, "
            "--methods-paragraph or --bibtex"
        )
    named = {f"--{name.replace('_', '-')}": value for name, value in vars(of_model).items()} | {"--onnx": onnx}
    if n_asked and (given := [name for name, value in named.items() if value is not None and value is not False]):
        faults.append(
            f"{', '.join(given)}: only a model has this; leave out what else is asked for, and give -o FOLDER"
        )
    if of_model.seed is not None and of_model.ensemble:
        faults.append("--seed, --ensemble: expected one of them, got both; drop one")
    if format == "xlsx" and output is None:
        faults.append("--format xlsx: a workbook cannot be printed; name a file with -o FILE")
    if metrics and format is None:
        faults.append("--metric: it chooses what a table shows; give --format, or leave it out")
    if faults:
        raise UsageError(*faults)
    return n_asked == 0


def _write(content: str | bytes, output: str | None) -> None:
    if output is not None:
        from orchestrator.report.exports.writing import write_export

        write_export(output, content.encode() if isinstance(content, str) else content)
        print(f"written to {output}")
    elif isinstance(content, str):
        print(content, end="")


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="A run folder: a path or a URI.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it for machines.")] = False,
    plugins: Plugins = None,
) -> None:
    """Compare two runs: what differs in their specs, data and software, and in the cells that both have."""
    import json

    from orchestrator import api
    from orchestrator.report.across_runs.comparison import compare_runs
    from orchestrator.report.across_runs.comparison_view import render_comparison
    from orchestrator.report.console import make_console
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    found = compare_runs(api.open_run(run_a, cached=True), api.open_run(run_b, cached=True))
    if as_json:
        print(json.dumps(found.to_plain(), indent=2, allow_nan=False))
    else:
        make_console().print(render_comparison(found))


def list_runs(
    folder: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", help="A folder of runs: a path or a URI; runs by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list for machines.")] = False,
    plugins: Plugins = None,
) -> None:
    """List the runs below a folder: newest trial, state, and the answer in a few words. It searches nothing again."""
    import json
    from dataclasses import asdict

    from orchestrator.report.across_runs.run_list import list_runs as runs_below
    from orchestrator.report.across_runs.run_list_view import render_runs
    from orchestrator.report.console import make_console
    from orchestrator.spec.loading import load_plugins
    from orchestrator.storage.base import DEFAULT_ROOT

    load_plugins(plugins or [])
    found = runs_below(folder if folder is not None else DEFAULT_ROOT)
    if as_json:
        print(json.dumps([asdict(run) | {"answers": dict(run.answers)} for run in found], indent=2))
    elif found:
        make_console().print(render_runs(found))
    else:
        print(f"no runs below {folder or DEFAULT_ROOT}")
