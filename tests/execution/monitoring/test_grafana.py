"""The Grafana dashboard asks for metrics that a sweep exports, by labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

from orchestrator.execution.monitoring.prometheus import SweepMetrics

DASHBOARD = json.loads((Path(__file__).parents[3] / "deploy" / "grafana.json").read_text(encoding="utf-8"))


def test_every_query_is_of_what_is_exported() -> None:
    metrics = SweepMetrics("somewhere")
    exported = {
        f"ray_{metric.info['name']}": {"run", *metric.info["tag_keys"]}
        for metric in vars(metrics).values()
        if hasattr(metric, "info")
    }
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked += [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    named = set()
    for query in asked:
        for name, labels in re.findall(r"(ray_continual_sweep_\w+?)(?:_bucket)?(\{[^}]*\})?(?=[,)\[])", query):
            assert set(re.findall(r"(\w+)=~", labels)) <= exported[name]
            named.add(name)
    assert named == set(exported)


def test_its_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)}
        assert not own & taken
        assert max(x for x, _ in own) < 24
        taken |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
