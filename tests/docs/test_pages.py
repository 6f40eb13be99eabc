"""Every command and file in README and docs, run as a reader would; long sweeps are shortened."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import secrets
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.spec.loading import parse_spec
from tests.conftest import REAL_DATA
from tests.docs.pages import ELSEWHERE, ROOT, Block, blocks_of, page_names, source_of
from tests.docs.session import PRELOAD, Options, cluster, run_page
from tests.test_architecture import MOST_FUNCTION_LINES, MOST_LINES, MOST_MODULES, ORDER, OUTSIDE

PAGES = page_names()
RUN_HERE = [p for p in PAGES if p not in ELSEWHERE and any("not run" not in block.marks for block in blocks_of(p))]
Outputs = dict[int, str]

pytestmark = pytest.mark.ray


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start the two nodes of the cluster's tutorial, for the sweeps of every page."""
    starts = [
        c for block in blocks_of("docs/tutorials/cluster.md") for c in block.commands if c.startswith("ray start")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with cluster(starts[:2]) as found:
            yield found


@pytest.fixture(scope="module")
def run(address: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outputs]:
    """Return a function that runs a page in a process that has imported what is slow, and returns what it printed."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    done: dict[str, Outputs] = {}
    mnist = REAL_DATA if (REAL_DATA / "MNIST").is_dir() else None
    quickstart = tmp_path_factory.mktemp("docs") / "README"

    def call(page: str) -> Outputs:
        if page in done:
            return done[page]
        folder = quickstart if page == "README.md" else tmp_path_factory.mktemp("docs")
        folder.mkdir(exist_ok=True)
        if page != "README.md" and any("uses" in block.marks for block in blocks_of(page)):
            call("README.md")
        report = folder / ".report.json"
        options = Options(True, address, quickstart / "runs" / "quickstart", mnist)
        process = context.Process(target=run_page, args=(page, folder, options, report))
        process.start()
        process.join()
        found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {"error": process.exitcode}
        assert "error" not in found, f"{page}: {found['error']}"
        done[page] = {int(number): text for number, text in found["outputs"].items()}
        return done[page]

    return call


@pytest.mark.parametrize("page", RUN_HERE)
def test_page(page: str, run: Callable[[str], Outputs]) -> None:
    """Run every block of a page, and hold the heads of its sample tables against those that are printed."""
    outputs, blocks = run(page), blocks_of(page)
    for number, block in enumerate(blocks):
        if "output" in block.marks:
            assert block.text.strip(), f"{page}:{block.line}: no sample; python -m tests.docs --write fills it"
            if (source := source_of(blocks, number)) in outputs:
                printed = {" ".join(line.split()) for line in outputs[source].splitlines()}
                assert heads(block.text) <= printed, f"{page}:{block.line}: the sample is stale"


def heads(text: str) -> set[str]:
    """Return the lines of a sample that head a table."""
    lines = {" ".join(line.split()) for line in text.splitlines()}
    return {line for line in lines if re.match(r"(method|cell done|accuracy on) ", line)}


def test_a_stale_sample_is_seen() -> None:
    assert heads("  method   limits   kept\n  naive  met  0\n") == {"method limits kept"}


def test_what_is_not_run_is_little_and_says_why() -> None:
    left_out = {(block.page, block.marks["not run"]) for block in all_blocks() if "not run" in block.marks}
    assert all(len(reason) > 10 for _, reason in left_out)
    assert {page for page, _ in left_out} == {
        "README.md",
        "docs/how-to/docker.md",
        "docs/how-to/gate.md",
        "docs/how-to/gpus.md",
        "docs/how-to/kubernetes.md",
        "docs/how-to/object-storage.md",
        "docs/how-to/page.md",
        "docs/how-to/slurm.md",
        "docs/tutorials/cluster.md",
    }
    assert len(left_out) == 14


def test_every_command_is_in_a_block() -> None:
    """A command that is indented, as Markdown allows, would be run by nobody."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r"^    (?:\$ |python |make |ray |pip ).*", text, re.MULTILINE) == [], page


def test_every_spec_on_a_page_is_whole() -> None:
    for block in all_blocks():
        if block.language == "yaml" and "not run" not in block.marks:
            assert "file" in block.marks, f"{block.page}:{block.line}: a spec that no command reads"
            parse_spec(yaml.safe_load(block.text))


def test_links_between_pages_lead_somewhere() -> None:
    """Those of README and CONTRIBUTING, which Sphinx does not read, and all others as they stand in git."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            path = os.path.normpath(ROOT / page / ".." / target)
            assert Path(path).exists() or "/docs/reference/" in path, f"{page}: {target}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_architecture_names_every_package_in_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^1\. \*\*`([\w.]+)`\*\*", text, re.MULTILINE)) == ORDER


def test_the_architecture_says_what_its_test_holds() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (`.*`) \|$", text, re.MULTILINE)
    assert {tool: set(re.findall(r"`([\w.]+)`", packages)) for tool, packages in rows} == OUTSIDE
    limits = f"{MOST_MODULES} modules, a module to {MOST_LINES} lines and a function to {MOST_FUNCTION_LINES}"
    assert limits in " ".join(text.split())


def test_every_page_is_in_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^[\w-]+(?:/[\w-]+)?$", index, re.MULTILINE))
    ours = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")}
    assert ours - {"index"} <= listed
