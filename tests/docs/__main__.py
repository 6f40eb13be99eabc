"""Run every page unshortened, as before a release; with --write, put what was printed into the pages' samples."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import sys
import tempfile
from contextlib import nullcontext
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.docs.pages import ELSEWHERE, ROOT, Block, blocks_of, page_names, source_of
from tests.docs.session import PRELOAD, Options, cluster, run_page


def main() -> int:
    """Return 1 if a page fails."""
    parser = argparse.ArgumentParser(prog="tests.docs", description=__doc__)
    parser.add_argument("pages", nargs="*", help="such as docs/how-to/tables.md; all by default")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST; without it what needs MNIST is left out")
    parser.add_argument("--quickstart", type=Path, help="a finished run of the quickstart; else README's makes it")
    parser.add_argument(
        "--folder", type=Path, help="where the pages are run, and what is complete there is not repeated"
    )
    parser.add_argument("--write", action="store_true", help="put what is printed into the samples of the pages")
    options = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    root = options.folder or Path(tempfile.mkdtemp(prefix="docs"))
    mnist = options.data_dir if options.data_dir and (options.data_dir / "MNIST").is_dir() else None
    n_failed = 0
    for page in options.pages or [page for page in page_names() if page not in ELSEWHERE and blocks_of(page)]:
        folder = root / page.removesuffix(".md").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        quickstart = options.quickstart or root / "README" / "runs" / "quickstart"
        starts = [command for block in blocks_of(page) for command in block.commands if command.startswith("ray start")]
        local = [start for start in starts if "FIRST" not in start][:2]
        with cluster(local) if local else nullcontext(None) as address:
            report = folder / ".report.json"
            report.unlink(missing_ok=True)
            process = context.Process(
                target=run_page,
                args=(
                    page,
                    folder.resolve(),
                    Options(False, address, quickstart.resolve(), mnist and mnist.resolve()),
                    report.resolve(),
                ),
            )
            process.start()
            process.join()
        found = json.loads(report.read_text()) if report.exists() else {"error": f"ended with {process.exitcode}"}
        print(f"{page}: {found.get('error', 'runs as it says')}", flush=True)
        n_failed += "error" in found
        if options.write:
            write_samples(page, {int(number): text for number, text in found.get("outputs", {}).items()})
    return int(n_failed > 0)


def write_samples(page: str, outputs: dict[int, str]) -> None:
    """Replace each sample of a page by what the block before it printed; it stays where that did not run."""
    path, blocks = ROOT / page, blocks_of(page)
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, block in reversed(list(enumerate(blocks))):
        source = source_of(blocks, number)
        if "output" in block.marks and source in outputs:
            sample = cut(outputs[source], block)
            lines[block.line - 1 : block.line - 1 + len(block.text.splitlines())] = sample
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cut(text: str, block: Block) -> list[str]:
    """Return the lines of an output that a sample shows.

    `from "A"` is the beginning of its first line, the last such line; `to "B"` that of the line after its last.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    bounds = dict(zip(["from", "to"], block.marks["output"].split('"')[1::2], strict=False))
    if "from" in bounds:
        starts = [n for n, line in enumerate(lines) if f"{line}  ".startswith(bounds["from"])]
        lines = lines[starts[-1] :] if starts else lines
    if "to" in bounds:
        ends = [n for n, line in enumerate(lines) if line.startswith(bounds["to"])]
        lines = lines[: ends[0]] if ends else lines
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return lines


if __name__ == "__main__":
    sys.exit(main())
