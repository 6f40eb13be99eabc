"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecFile = Annotated[Path | None, typer.Argument(metavar="[SPEC.yaml]", help="The sweep's spec.")]
Preset = Annotated[
    str | None,
    typer.Option(help="A spec that comes with the package: quickstart (default), split-mnist, split-mnist-hsu, …"),
]
RunOption = Annotated[Path | None, typer.Option("--run", help="The run folder.  [default: runs/NAME]")]
DataDir = Annotated[
    Path,
    typer.Option(envvar="CONTINUAL_SWEEP_DATA", help="Where torchvision's data sets are, or are downloaded to once."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override any field, such as training.epochs=3."),
]
Scenarios = Annotated[str | None, typer.Option(help="Override scenarios, separated by commas.")]
Methods = Annotated[str | None, typer.Option(help="Override methods, separated by commas.")]
Limit = Annotated[list[str] | None, typer.Option(help="Override limits, such as 'worst_forgetting <= 0.05'.")]
Suggestions = Annotated[int | None, typer.Option(help="Override the budget of each searched cell.")]
SearchSeeds = Annotated[int | None, typer.Option(help="Override the number of search seeds.")]
ConfirmSeeds = Annotated[int | None, typer.Option(help="Override the number of confirm seeds.")]
Cpus = Annotated[float | None, typer.Option(help="Override the CPUs of a trial.")]
Gpus = Annotated[float | None, typer.Option(help="Override the GPUs of a trial; fractions share one.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE:CLASS", help="Import this method or model, which the run names: its code runs."
    ),
]
DATA_DIR = Path("~/.cache/continual-sweep")
