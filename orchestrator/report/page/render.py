"""The page of a run as one HTML file: it opens offline, and asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import shlex
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.core.errors import MissingExtraError
from orchestrator.core.text import counted
from orchestrator.core.version import __version__
from orchestrator.report.numbers import duration
from orchestrator.report.page.boundaries import found_boundaries, with_boundaries
from orchestrator.report.page.content import PageContent, glossary_of, question_of, scenario_content
from orchestrator.report.page.facts import Tables
from orchestrator.results.folder import read_file
from orchestrator.search.answers.summary import note_on_others, summarise
from orchestrator.storage.base import BOUNDARIES_FILE, DATA_FILE, SPEC_FILE

if TYPE_CHECKING:
    from orchestrator.results.run import Run

_VERSIONS = ("package_version", "code_revision", "python_version", "torch_version", "ray_version", "optuna_version")


def content_of(run: Run) -> PageContent:
    """Return what the page of a run says."""
    spec = run.spec
    trials, search = run.tables.trials.read(), run.search(spec)
    tables = Tables(trials, run.tables.accuracy.read(), run.diagnostics(), run.tables.evaluations.read())
    answer = run.answer()
    found = found_boundaries(read_file(run.storage, BOUNDARIES_FILE))
    scenarios = tuple(
        with_boundaries(scenario_content(search, summary, answer, tables, index), found)
        for index, summary in enumerate(summarise(search, trials))
    )
    missing = answer.n_missing
    is_or_are = "is" if missing == 1 else "are"
    return PageContent(
        spec.name,
        question_of(spec),
        f"Not final: {counted(missing, 'trial')} {is_or_are} missing, at most." if missing else "",
        scenarios,
        _facts(trials, note_on_others(search, trials), answer.spec_hash),
        read_file(run.storage, DATA_FILE).decode(errors="replace"),
        _command(run),
        spec.to_yaml(),
        glossary_of(spec),
    )


def _command(run: Run) -> str:
    """Return the command that repeats the sweep; the spec of a run in an object store is first saved from the page."""
    spec = SPEC_FILE if run.storage.path is None else f"{run.where}/{SPEC_FILE}"
    return f"python -m orchestrator sweep {shlex.quote(spec)} --run {shlex.quote(run.where)}"


def _facts(trials: pd.DataFrame, others: str, spec_hash: str) -> dict[str, str]:
    """Return where the trials ran and with what."""
    found = {"trials": f"{len(trials):,}" + (f"; {others}" if others else "")}
    for name in ("status", "phase"):
        counts = trials[name].value_counts()
        found[name] = ", ".join(f"{counts[value]:,} {value}" for value in counts.index)
    started = trials["started_at"].dropna()
    if len(started):
        found["ran"] = (
            f"{started.min():%Y-%m-%d %H:%M} to {started.max():%Y-%m-%d %H:%M} (start of the last trial, UTC)"
        )
    found["wall time of all trials"] = duration(float(trials["seconds"].sum()))
    for name in ("device_name", "host", *_VERSIONS, "data_hash"):
        values = sorted({str(value) for value in trials[name].dropna()})
        if values:
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            found[name.replace("_", " ")] = ", ".join(values[:5]) + more
    return found | {"spec hash": spec_hash, "page written by": f"continual-sweep {__version__}"}


def render_page(content: PageContent, state: str, live: str = "") -> str:
    """Return a page as HTML. Its policy lets only its own two scripts run, whatever text a run holds.

    Args:
        content: what it says.
        state: hash of everything that it depends on.
        live: the address, on the same server, of the state that it watches; empty for a page that stands by itself.

    Raises:
        MissingExtraError: if the extra `report` is not installed.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    loader = PackageLoader("orchestrator.report.page", "assets")
    environment = Environment(
        loader=loader, autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    scripts = {"charts": chart_library(), "own": _asset("page.js")}
    policy = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts.values())
    return environment.get_template("page.html").render(
        page=content,
        drawn={figure.name: figure.drawn() for figure in content.figures},
        style=_asset("page.css"),
        scripts=scripts,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {policy}"
        + ("; connect-src 'self'" if live else ""),
        state=state,
        live=live,
    )


@lru_cache(maxsize=1)
def chart_library() -> str:
    """Return the script that draws charts: Vega, Vega-Lite and Vega-Embed.

    Raises:
        MissingExtraError: if the extra `report` is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError("the page", "report") from error
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # which has a default
    return bundle.replace("</script", "<\\/script")  # in a string of the script; the element would end there


def _asset(name: str) -> str:
    return (resources.files("orchestrator.report.page") / "assets" / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
