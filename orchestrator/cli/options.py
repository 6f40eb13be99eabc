"""The options that commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from orchestrator.core.errors import SpecError

SpecFile = Annotated[Path | None, typer.Argument(metavar="[SPEC.yaml]", help="The sweep's spec.")]
Preset = Annotated[
    str | None,
    typer.Option(help="A spec that comes with the package: quickstart (default), split-mnist, split-mnist-hsu, …"),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="The run folder, a path or a URI.  [default: STORAGE/NAME]")
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="STORAGE",
        help="Where run folders lie: a path, or a URI such as s3://bucket/prefix?region=eu-west-1, which every worker "
        "reaches with credentials from its environment.  [default: runs]",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a path or a URI.")]
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
AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Go on although earlier trials ran with other software or devices."),
]
Cpus = Annotated[float | None, typer.Option(help="Override the CPUs of a trial.")]
Gpus = Annotated[float | None, typer.Option(help="Override the GPUs of a trial; fractions share one.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE:CLASS", help="Import this method or model, which the run names: its code runs."
    ),
]


def parse_overrides(settings: list[str] | None, options: dict[str, Any], option: str = "--set") -> dict[str, Any]:
    """Return field path -> value from `--set` (or another option) and the options with names of their own."""
    form = "FIELD=VALUE" if option == "--set" else "NAME=VALUE"
    found = {path: value for path, value in options.items() if value is not None}
    faults = []
    for setting in settings or []:
        path, equals, text = setting.partition("=")
        try:
            if not equals or not all(path.split(".")):
                raise ValueError
            found[path.strip()] = yaml.safe_load(text)
        except Exception:  # beside its own errors, PyYAML lets through whatever a bad tag raises
            shown = setting if len(setting) <= 80 else setting[:77] + "..."
            example = "training.epochs=3" if option == "--set" else "penalty_weight=10"
            faults.append(f"{option}: expected {form}, got '{shown}'; for example {example}")
    if faults:
        raise SpecError(faults)
    return found


def split(text: str | None) -> list[str] | None:
    """Return the parts between commas."""
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None
