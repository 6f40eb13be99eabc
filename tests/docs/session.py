"""Running the blocks of a page one after the other, as a reader would, in a process and a folder of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, Block, blocks_of

QUICK = (
    "--methods naive,replay --scenarios split-digits/task --suggestions 2 --search-seeds 1 --confirm-seeds 1 "
    "--set search.batch=2 --set training.epochs=1"
)
"""What makes the quickstart a matter of seconds; `QUICK` in a comment stands for it."""

COLUMNS = "160"
PRELOAD = [
    "orchestrator.execution.session",
    "orchestrator.execution.tuner",
    "orchestrator.cli.sweeps",
    "tests.docs.session",
]
"""What commands import late, which is most of their time. It is imported once, and every page is forked from it."""


class PageError(AssertionError):
    """A block of a page did not do what the page says."""


@dataclass(frozen=True)
class Options:
    """How pages are run.

    Args:
        is_quick: shorten what is long and leave out what is only for a release.
        address: of a running cluster that sweeps join; None starts one for each, as the pages say.
        quickstart: a run folder of the quickstart that pages may read.
        mnist: a folder with MNIST; None skips the blocks that need it.
    """

    is_quick: bool
    address: str | None = None
    quickstart: Path | None = None
    mnist: Path | None = None


def run_page(page: str, folder: Path, options: Options, report: Path) -> None:
    """Run a page and write as JSON what each block printed, by number, or what went wrong. Meant for a new process."""
    os.chdir(folder)
    os.environ |= {"COLUMNS": COLUMNS, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    sys.path[:0] = [str(folder), str(ROOT)]
    session = Session(folder, options)
    outputs: dict[int, str] = {}
    try:
        for number, block in enumerate(blocks_of(page)):
            printed = session.run(block)
            if printed is not None:
                outputs[number] = printed
        report.write_text(json.dumps({"outputs": outputs}))
    except BaseException as error:
        shown = f"{error}" if isinstance(error, PageError) else traceback.format_exc()
        report.write_text(json.dumps({"error": shown, "outputs": outputs}))


class Session:
    """One reader on one page.

    Args:
        folder: the working directory.
        options: how pages are run.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder, self._options = folder, options
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> str | None:
        """Run one block and return what it printed, or None if it is none to run.

        Raises:
            PageError: if a command fails.
        """
        marks, options = block.marks, self._options
        if "file" in marks:
            (self._folder / marks["file"]).write_text(block.text, encoding="utf-8")
            return None
        if "output" in marks or "not run" in marks or ("release" in marks and options.is_quick):
            return None
        if ("needs" in marks and importlib.util.find_spec(marks["needs"]) is None) or (
            "mnist" in marks and options.mnist is None
        ):
            return None
        if "mnist" in marks:
            os.environ["CONTINUAL_SWEEP_DATA"] = str(options.mnist)
        if "uses" in marks:
            self._provide(marks["uses"])
        if block.language == "python":
            return self._printed(block, lambda: exec(compile(block.text, block.page, "exec"), self._names) or 0)
        if block.language in ("console", "bash"):
            more = shlex.split(marks.get("shortened", "").replace("QUICK", QUICK)) if options.is_quick else []
            return "".join(self._command(block, command, more) for command in block.commands)
        if block.language in ("text", "toml"):
            return None
        raise PageError(f"{block.page}:{block.line}: a block in '{block.language}' that nothing runs; mark it")

    def _command(self, block: Block, command: str, more: list[str]) -> str:
        command, _, target = command.partition(" > ")
        words = shlex.split(command)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ[name] = value
            return ""
        if words[0] == "cd":
            shutil.copytree(ROOT / words[1], self._folder / words[1])
            os.chdir(words[1])
            return ""
        if words[0] == "make":
            return self._make(block, words)
        if words[:2] == ["ray", "start"]:
            if self._options.address is None:
                raise PageError(f"{block.page}:{block.line}: '{command}' needs a cluster that is started for the page")
            return ""
        if words[:3] == ["python", "-m", "orchestrator"]:
            printed = self._orchestrator(block, words[3:], more)
        elif words[0] == "python" and words[1].endswith(".py"):
            sys.argv = words[1:]
            printed = self._printed(block, lambda: runpy.run_path(words[1], run_name="__main__") and 0)
        else:
            raise PageError(f"{block.page}:{block.line}: '{command}' is nothing that is run here; mark the block")
        if target:
            (self._folder / target).write_text(printed, encoding="utf-8")
            return ""
        return printed

    def _orchestrator(self, block: Block, arguments: list[str], more: list[str]) -> str:
        from orchestrator.cli import main as cli

        arguments = [self._key() if word == "KEY" else word for word in arguments]
        if arguments[0] in ("sweep", "trial"):
            arguments += more
        if arguments[0] == "sweep" and self._options.address is not None:
            arguments += ["--address", self._options.address]

        def call() -> int:
            sys.argv = ["orchestrator", *arguments]
            return cli.guarded(cli.app)

        return self._printed(block, call)

    def _make(self, block: Block, words: list[str]) -> str:
        """Check that the target is there; `make sweep` runs, shortened or in a copy of the checkout."""
        shown = subprocess.run(
            ["make", "--dry-run", "--no-print-directory", *words[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.returncode != 0:
            raise PageError(f"{block.page}:{block.line}: {shlex.join(words)}: {shown.stderr}")
        if words[1] != "sweep":
            return ""
        if not shown.stdout.rstrip().endswith("-m orchestrator sweep"):
            raise PageError(f"make sweep: expected to end with the sweep, got {shown.stdout}")
        if self._options.is_quick:
            return self._orchestrator(block, ["sweep"], shlex.split(QUICK))
        clone = self._folder / "clone"
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        for name in names:
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
        venv = Path(sys.prefix)
        done = subprocess.run(
            ["make", "sweep", f"VENV={venv}", "--old-file", str(venv / ".ready")],
            cwd=clone,
            env=os.environ | {"PYTHONPATH": str(clone)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PageError(f"make sweep ended with {done.returncode}:\n{done.stdout[-3000:]}")
        shutil.copytree(clone / "runs", self._folder / "runs")
        return done.stdout

    def _printed(self, block: Block, call: Any) -> str:
        """Return what `call` prints.

        Raises:
            PageError: if it returns anything but 0.
        """
        caught = io.StringIO()
        with contextlib.redirect_stdout(caught), contextlib.redirect_stderr(caught):
            code = call()
        if code != 0:
            raise PageError(f"{block.page}:{block.line}: exit code {code}\n{block.text}\n{caught.getvalue()}")
        return caught.getvalue()

    def _provide(self, name: str) -> None:
        """Put a copy of a run that another page made into `runs`."""
        assert name == "quickstart"
        assert self._options.quickstart is not None
        if not (self._folder / "runs" / name).exists():
            shutil.copytree(self._options.quickstart, self._folder / "runs" / name)

    def _key(self) -> str:
        import orchestrator

        return str(orchestrator.open_run("runs/quickstart").trials()["key"].iloc[0])


@contextlib.contextmanager
def cluster(starts: list[str]) -> Iterator[str]:
    """Run the `ray start` commands of a page, on a free port, and yield the cluster's address."""
    temporary = Path(tempfile.mkdtemp(prefix="docs-ray"))
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        try:
            address = _start(starts, temporary / "a", nodes)
        except PageError:  # a raylet may lose one of its ports to another cluster of this machine
            _end(nodes)
            address = _start(starts, temporary / "b", nodes)
        yield address
    finally:
        _end(nodes)
        shutil.rmtree(temporary, ignore_errors=True)


def _start(starts: list[str], temporary: Path, nodes: list[subprocess.Popen[bytes]]) -> str:
    """Start a node a command, put it into `nodes`, and return the cluster's address once all run."""
    temporary.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for number, start in enumerate(starts):
        words = [word.replace("6379", port) for word in shlex.split(start)]
        more = ["--temp-dir", str(temporary), "--include-dashboard=false"] if "--head" in words else []
        log = temporary / f"node-{number}.log"
        with log.open("wb") as output:
            node = subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), *words[1:], *more, "--block"],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_raylet_start_wait_time_s": "120"},
            )
        nodes.append(node)
        _wait_for(log, "Ray runtime started", node)
    return f"127.0.0.1:{port}"


def _end(nodes: list[subprocess.Popen[bytes]]) -> None:
    """End nodes, the last first; with `--block` a node ends its processes itself."""
    for node in reversed(nodes):
        node.terminate()
    while nodes:
        node = nodes.pop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(timeout=30)
        node.kill()
        node.wait()


def _wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has written `text`.

    Raises:
        PageError: if it ends before.
    """
    while text not in (shown := log.read_text(errors="replace")):
        if process.poll() is not None:
            raise PageError(f"ray start ended with {process.returncode}:\n{shown}")
        time.sleep(0.1)
