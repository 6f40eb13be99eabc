"""The commands `report` and `serve`: the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.shared.options import Plugins, RunArgument
from orchestrator.core.errors import UsageError, system_message

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes any that is free.")]


def report(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; report.html in RUN by default.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Write the page of a run: one HTML file that opens offline, with the answer and its figures."""
    from orchestrator import api
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    print(f"Page: {api.report(run, output)}")


def serve(run: RunArgument, port: Port = 0, plugins: Plugins = None) -> None:
    """Show the page of a run in a browser of this machine, renewed as trials end, until Ctrl-C."""
    from orchestrator import api
    from orchestrator.spec.loading import load_plugins

    load_plugins(plugins or [])
    api.open_run(run)
    from orchestrator.report.page.server import PageServer

    try:
        server = PageServer(run, port)
    except OSError as error:
        raise UsageError(f"--port: {system_message('listen on', f'port {port}', error)} Choose another.") from error
    print(f"Page: {server.address}  (Ctrl-C ends it)", flush=True)
    server.run_until_interrupted()
