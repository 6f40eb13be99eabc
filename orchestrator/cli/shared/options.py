"""The options that commands share, and how their values are parsed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.core.errors import UsageError

SpecFile = Annotated[Path | None, typer.Argument(metavar="[SPEC.yaml]", help="The spec of the sweep.")]
Preset = Annotated[
    str | None,
    typer.Option(help="A spec from this package: quickstart (default), split-mnist, split-mnist-hsu, …"),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="The run folder: a path or a URI.  [default: STORAGE/NAME]")
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="STORAGE",
        help="The folder of run folders: a path, or a URI such as s3://bucket/prefix?region=eu-west-1. Every worker "
        "needs credentials for it in its environment.  [default: runs]",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder: a path or a URI.")]
DataDir = Annotated[
    Path,
    typer.Option(
        envvar="CONTINUAL_SWEEP_DATA", help="The folder of torchvision's data sets; missing ones are downloaded."
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override any field, such as training.epochs=3."),
]
Scenarios = Annotated[str | None, typer.Option(help="Override the scenarios, separated by commas.")]
Methods = Annotated[str | None, typer.Option(help="Override the methods, separated by commas.")]
Limit = Annotated[
    list[str] | None, typer.Option(help="Override the limits; repeat for several, such as 'worst_forgetting <= 0.05'.")
]
Suggestions = Annotated[int | None, typer.Option(help="Override the suggestions per searched cell.")]
SearchSeeds = Annotated[int | None, typer.Option(help="Override the number of search seeds.")]
ConfirmSeeds = Annotated[int | None, typer.Option(help="Override the number of confirm seeds.")]
Address = Annotated[
    str | None,
    typer.Option(help="Join this running Ray cluster; 'auto' finds one. By default one is started on this machine."),
]
NumCpus = Annotated[int | None, typer.Option(min=1, help="CPUs of the cluster that is started on this machine.")]
MirrorStudies = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Copy the studies to this Optuna storage, to view them in its dashboard."),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Tell a tracker of the sweep: mlflow:URI, tensorboard:DIR, or wandb (offline). Repeat for several.",
    ),
]
RequireAnswer = Annotated[
    bool, typer.Option("--require-answer", help="End with exit code 5 if a scenario has no recommendation.")
]
AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Continue although earlier trials ran with other software or devices."),
]
Cpus = Annotated[float | None, typer.Option(help="Override the CPUs per trial.")]
Gpus = Annotated[float | None, typer.Option(help="Override the GPUs per trial; with a fraction, trials share a GPU.")]
Serve = Annotated[
    bool, typer.Option("--serve", help="Show the page in a browser of this machine while the sweep runs.")
]
Notify = Annotated[
    str | None, typer.Option(metavar="URL", help="Send the answer there with a POST, at the end or at a halt.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print a line for every trial.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the answer alone.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="MODULE:CLASS",
        help="Import this method or model, which the run names. Its code will run.",
    ),
]


def parse_overrides(settings: list[str] | None, options: dict[str, Any], option: str = "--set") -> dict[str, Any]:
    """Return field path -> value, from the values of `--set` (or `option`) and from options with their own names.

    Raises:
        UsageError: if a setting is not of the form FIELD=VALUE.
    """
    from orchestrator.spec.safe_yaml import AmbiguousError, load_yaml

    form, example = ("FIELD=VALUE", "training.epochs=3") if option == "--set" else ("NAME=VALUE", "penalty_weight=10")
    found = {path: value for path, value in options.items() if value is not None}
    faults = []
    for setting in settings or []:
        path, equals, text = setting.partition("=")
        shown = setting if len(setting) <= 80 else setting[:77] + "..."
        place = tuple(path.strip().split(".")) if option == "--set" else ()
        try:
            if not equals or not all(path.split(".")):
                raise ValueError
            found[path.strip()] = load_yaml(text.encode(), _texts_at(place))
        except AmbiguousError as error:
            faults.append(f"{option}: {error} (in '{shown}')")
        except Exception:  # a bad tag can raise anything, not only PyYAML's own errors
            faults.append(f"{option}: expected {form}, got '{shown}'. For example: {option} {example}")
    if faults:
        raise UsageError(*faults)
    return found


def _texts_at(place: tuple[str, ...]) -> Callable[[tuple[str, ...]], bool]:
    """Return the function that tells whether the spec has text at a path under `place`, if that is in a spec at all."""
    from orchestrator.spec.typed_fields import is_text

    return lambda inner: bool(place) and is_text((*place, *inner))


def split(text: str | None) -> list[str] | None:
    """Return the parts between commas."""
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None
