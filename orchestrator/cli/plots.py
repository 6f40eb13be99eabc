"""The command `plot`: figures for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.shared.options import RunArgument
from orchestrator.core.errors import UsageError
from orchestrator.core.text import visible


def plot(
    run: RunArgument,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="matrix, curves, frontier, bars or critical-difference.")],
    file_format: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="pdf, svg or png.  [default: as FILE ends, else pdf]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.  [default: KIND.FORMAT]")
    ] = None,
    scenario: Annotated[str | None, typer.Option(help="Draw this scenario alone.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="The metric of frontier's limit, the only one of bars, or what methods are ranked by."),
    ] = None,
    width: Annotated[
        str, typer.Option(metavar="WIDTH", help="column (3.5 in, one of a paper's two) or text (7 in).")
    ] = "text",
) -> None:
    """Draw a figure of a run for a paper, from its tables alone, and print its caption."""
    from orchestrator import api
    from orchestrator.report.figures.kinds import FORMATS, check_choice, draw

    chosen = _format(file_format, output)
    check_choice("--format", chosen, FORMATS)
    drawing = draw(api.open_run(run, cached=True), kind, scenario, metric, width)
    from orchestrator.report.exports.writing import write_export
    from orchestrator.report.figures.drawing import encode

    place = output or Path(f"{kind}.{chosen}")
    content = encode(drawing, chosen)
    write_export(str(place), content)
    print(f"{visible(str(place))}: {visible(' '.join(drawing.caption))}")


def _format(asked: str | None, output: Path | None) -> str:
    """Return the format that is asked for, or that the name of the file ends in.

    Raises:
        UsageError: if the two differ, or the file's ending is no format and none is asked for.
    """
    ending = output.suffix.removeprefix(".").lower() if output is not None else ""
    if asked is not None and ending in ("pdf", "svg", "png") and ending != asked:
        raise UsageError(f"--format: expected the format that '{output}' ends in, got '{asked}'; drop one of the two")
    return asked or ending or "pdf"
