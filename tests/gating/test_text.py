"""A report as lines, JSON and Markdown, with names that are anybody's."""

from __future__ import annotations

import json

import pytest

from orchestrator.gating.deciding import GateReport, decide
from orchestrator.gating.evidence import Cost
from orchestrator.gating.policy import Check, Policy
from orchestrator.gating.text import code, escaped, to_json, to_lines, to_markdown
from tests.gating.evidence_maker import models, task

HOSTILE = "<img src=x>|`**[a](http://b.c)**`\\|\n# @team #12 www.evil.org ~~x~~ $y$ a_b_ \x1b[31m\u202e"


def report(name: str = "2023Q1") -> GateReport:
    size = Check(name="size", kind="kept_bytes", limit=1e6, severity="informational")
    evidence = models(
        task(name, 20, 25, 1_000), task("new", 0, 0, 20, is_new=True), costs={"kept_bytes": Cost(1.0, 2.5e6)}
    )
    return decide(evidence, Policy(checks=(*Policy().checks, size)))


def test_one_line_a_check_and_task() -> None:
    lines = to_lines(report())
    assert lines[0] == "INCONCLUSIVE"
    reason = "about 129 more examples would show that it is met, if the estimate stays"
    assert lines[1] == f"  new task, new: {reason}"
    assert lines[3] == (
        "undecided  critical       new task: new          +0.000 (90% interval -0.119 to +0.119), limit -0.02, "
        f"20 examples, p = 0.668: {reason}"
    )
    assert lines[4].startswith("met        critical       earlier tasks: 2023Q1  -0.005 (90% interval -0.016 to")
    assert lines[4].endswith("limit -0.05, 1000 examples, p < 0.001")
    assert lines[6] == "violated   informational  size                   2.5 MB, limit 1 MB: it is more than the limit"
    assert len(lines) == 7


def test_json_has_no_nan_and_a_version() -> None:
    content = json.loads(json.dumps(to_json(report()), allow_nan=False))
    assert (content["schema_version"], content["outcome"], content["alpha"]) == (1, "INCONCLUSIVE", 0.05)
    new, _, _, size = content["checks"]
    assert (new["task"], new["verdict"], new["n_more"], new["limit"]) == ("new", "undecided", 129, 0.02)
    assert (size["estimate"], size["interval"], size["p_met"], size["score"]) == (2.5e6, [None, None], None, None)


def test_markdown_is_a_table() -> None:
    text = to_markdown(report())
    assert text.startswith("## ❔ INCONCLUSIVE\n\n- new task, new&#58; about 129 more examples")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 6
    assert {row.count("|") for row in rows} == {10}
    assert "| earlier tasks | <code>2023Q1</code> | critical | met | -0.005 | -0.016 to +0.006 | -0.05 |" in text


def test_a_hostile_name_is_no_markdown() -> None:
    missing = Check(name=HOSTILE[:80], kind="earlier_tasks", limit=0.1, tasks={HOSTILE: 0.2})
    found = decide(models(task(HOSTILE, 20, 25, 1_000)), Policy(checks=(missing,)))
    text = to_markdown(found)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {10}
    body = text.split("| --- |\n")[1].replace("<code>", "").replace("</code>", "")
    assert not set(body) & set("<>`*[]()\\_@~$!/=") - set("|")
    assert "www." not in text
    assert "\x1b" not in text + "".join(to_lines(found))
    assert "\u202e" not in text + "".join(to_lines(found))
    assert all("\n" not in line for line in to_lines(found))


@pytest.mark.parametrize("text", ["1. a", "- a", "+ a", "# a", "> a", "    a", "a@b.org", "https://a.org"])
def test_the_start_of_a_text_is_no_mark(text: str) -> None:
    assert escaped(text)[0] in "1a&h"
    assert not set(escaped(text)) & set("-+>@.:/")
    assert "#" not in escaped(text).replace("&#", "")


def test_code_spells_signs() -> None:
    assert code("a|`b") == "<code>a&#124;&#96;b</code>"
    assert code("2023Q1 é") == "<code>2023Q1 é</code>"
