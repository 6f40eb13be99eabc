"""The command line, a thin layer over `orchestrator.api`.

The modules of this package import only light modules at their top, so that help and lists do not wait for PyTorch.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli.exports import compare, export, list_runs
from orchestrator.cli.gates import gate, print_policy
from orchestrator.cli.lists import methods, print_spec, scenarios, schema
from orchestrator.cli.models import predict, update
from orchestrator.cli.pages import report, serve
from orchestrator.cli.plots import plot
from orchestrator.cli.runs import compact, logs, show
from orchestrator.cli.shared.exits import EXIT_MISTAKE, guarded
from orchestrator.cli.sweeps import plan, sweep
from orchestrator.cli.trials import trial
from orchestrator.core.encoding import never_fail
from orchestrator.core.errors import ON_WINDOWS


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from orchestrator.core.version import __version__

        print(f"continual-sweep {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app = typer.Typer(
    name="orchestrator",
    help="Compare continual-learning methods under limits on forgetting. Start with: python -m orchestrator sweep",
    epilog="Exit codes: 0 complete, 1 a bug, 2 wrong arguments, spec, data or run folder, 3 trials are missing (run "
    "again), 4 a repeated trial differs, 5 a scenario has no recommendation (with --require-answer), 6 the gate fails, "
    "7 the gate cannot decide, 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(_options)
for command in (
    sweep,
    plan,
    trial,
    show,
    report,
    serve,
    compare,
    export,
    predict,
    update,
    gate,
    plot,
    logs,
    compact,
    methods,
    scenarios,
    schema,
):
    app.command()(command)
app.command("ls")(list_runs)
app.command("spec")(print_spec)
app.command("gate-policy")(print_policy)


def main() -> None:
    """Run the command line."""
    if sys.platform == "win32":
        print(f"error: {ON_WINDOWS}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)
    never_fail(sys.stdout, sys.stderr)
    sys.exit(guarded(app))
