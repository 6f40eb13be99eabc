"""Exit codes, and errors as the terminal shows them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.cli.shared.exits import EXIT_INTERRUPTED, EXIT_MISTAKE, guarded
from orchestrator.core.errors import DataError, OrchestratorError, RunFolderError, SpecError, UsageError


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_exceptions_become_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: None) == 0
    assert guarded(raising(SystemExit(3))) == 3
    assert guarded(raising(SystemExit())) == 0
    assert guarded(raising(BrokenPipeError())) == 0
    assert guarded(raising(SpecError(["a: expected b, got c; d"]))) == EXIT_MISTAKE
    assert guarded(raising(KeyboardInterrupt())) == EXIT_INTERRUPTED
    err = capsys.readouterr().err
    assert "error: the spec has 1 fault:\n  a: expected b, got c; d\n" in err
    assert "stopped: complete trials are kept" in err
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RunFolderError("got '\x1b[2J\x07\x9b\u202e'"), r"error: got '\x1b[2J\x07\x9b\u202e'"),
        (RunFolderError("odd\nBest: evil\n  column: a\rb"), "error: odd\n  Best: evil\n  column: a\\rb"),
        (SpecError(["a: got 'x\n  b: y'", "c: z"]), "error: the spec has 2 faults:\n  a: got 'x\\n  b: y'\n  c: z"),
        (DataError("a: got 'x\ny'"), "error: a: got 'x\\ny'"),
        (UsageError("--set: got 'x\ny'", "--set: got 'z'"), "error: --set: got 'x\\ny'\n  --set: got 'z'"),
    ],
)
def test_an_error_has_no_control_characters(
    capsys: pytest.CaptureFixture[str], error: OrchestratorError, shown: str
) -> None:
    assert guarded(raising(error)) == EXIT_MISTAKE
    assert capsys.readouterr().err == f"{shown}\n"
