"""Streams, metrics and costs."""

from __future__ import annotations

import math

from generate.markdown import code, prose, table
from orchestrator.core.metrics import COSTS, DERIVED, METRICS_AND_COSTS, Metric
from orchestrator.core.scores import SCORES
from orchestrator.streams.checking import refused_type
from orchestrator.streams.facts import DATASETS
from orchestrator.streams.settings import INCREMENTAL_TYPES, STREAMS, StreamSettings, number_of_tasks


def streams_page() -> str:
    """Return the streams, metrics and costs."""
    streams = [
        [
            code(name),
            str(number_of_tasks(name, StreamSettings())),
            ", ".join(kind for kind in INCREMENTAL_TYPES if refused_type(name, kind) is None),
            prose(DATASETS[dataset].source),
        ]
        for name, (_, dataset) in STREAMS.items()
    ]
    facts = [[code(name), *_metric(metric)] for name, metric in METRICS_AND_COSTS.items()]
    derived = [[code(name), prose(text)] for name, text in DERIVED.items()]
    scores = [[code(f"{n}(CLASS)" if kind.of_class else n), prose(kind.meaning)] for n, kind in SCORES.items()]
    measured = ", ".join(code(name) for name, cost in COSTS.items() if cost.is_measured)
    return (
        "# Streams, metrics and costs\n\nA scenario is STREAM/TYPE, such as `split-mnist/class`.\n\n## Streams\n\n"
        + table(["stream", "tasks", "incremental types", "data set"], streams)
        + "\nThe number of tasks is the default. `rotated` and `noisy` streams have no `class` type: an image keeps "
        "its class, so no task brings new ones. [Your own images](../how-to/own-data.md) and "
        "[tables](../tutorials/own-table.md) are streams too.\n\n## Scores\n\nWhat a cell of R holds: accuracy by "
        "default. Values equal scikit-learn's; a score that a task cannot have is missing.\n\n"
        + table(["score", "meaning"], scores)
        + "\n## Metrics and costs\n\nA limit or an objective may name any of these; a metric also of another score or "
        f"of some tasks, as in `auroc.worst_forgetting[2023Q1]`. {measured} are measured, so they differ from run to "
        "run.\n\n"
        + table(["name", "better", "range", "meaning"], facts)
        + "\n## Columns that nothing is searched under\n\n"
        + table(["name", "meaning"], derived)
    )


def _metric(metric: Metric) -> list[str]:
    high = "∞" if math.isinf(metric.high) else f"{metric.high:g}"
    return ["less" if metric.lower_is_better else "more", f"{metric.low:g} to {high}", prose(metric.meaning)]
