"""The command `gate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.shared.exits import EXIT_FAIL, EXIT_INCONCLUSIVE
from orchestrator.cli.shared.options import DataDir, Plugins
from orchestrator.core.defaults import DATA_DIR
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.gating.deciding import GateReport


def gate(
    champion: Annotated[str, typer.Option(metavar="PLACE", help="The model in use, or its run.")],
    challenger: Annotated[str, typer.Option(metavar="PLACE", help="The model that would replace it, or its run.")],
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What must hold, as YAML; `gate-policy` prints the default.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="Models: labelled rows that both answer, for their held-out ones."),
    ] = None,
    scenario: Annotated[str | None, typer.Option(help="Runs: the scenario, if they share several.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Runs: this method of both. By default the recommended one.")
    ] = None,
    by: Annotated[
        Literal["seeds", "examples"],
        typer.Option(help="Runs: pair the seeds of all confirm trials, or the examples of the median ones."),
    ] = "seeds",
    as_json: Annotated[bool, typer.Option("--json", help="Print it for machines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print it for a pull request.")] = False,
    data_dir: DataDir = DATA_DIR,
    plugins: Plugins = None,
) -> None:
    """Decide whether a challenger may replace the champion: PASS (0), FAIL (6) or INCONCLUSIVE (7)."""
    if as_json and as_markdown:
        raise UsageError("--json, --markdown: expected one of them, got both; drop one")
    import json

    from orchestrator import api
    from orchestrator.gating.text import to_json, to_lines, to_markdown

    report = api.gate(champion, challenger, policy, data, scenario, method, data_dir, plugins or [], by)
    if as_json:
        print(json.dumps(to_json(report), indent=2, allow_nan=False))
    elif as_markdown:
        print(to_markdown(report), end="")
    else:
        print("\n".join(to_lines(report)))
    _end(report)


def _end(report: GateReport) -> None:
    codes = {"FAIL": EXIT_FAIL, "INCONCLUSIVE": EXIT_INCONCLUSIVE}
    if report.outcome in codes:
        raise typer.Exit(codes[report.outcome])


def print_policy(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a policy instead.")] = False,
) -> None:
    """Print the policy of `gate` that holds by default, to start one's own from."""
    import json

    from orchestrator.gating.policy import load_policy, policy_schema, policy_yaml

    print(json.dumps(policy_schema(), indent=2) if schema else policy_yaml(load_policy()).rstrip())
