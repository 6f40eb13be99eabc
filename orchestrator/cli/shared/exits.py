"""How a command ends: its exit code, and the message of an error."""

from __future__ import annotations

import sys
from collections.abc import Callable

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.signals import EXIT_TERMINATED, STOPPED, Terminated, terminable
from orchestrator.core.text import visible, visible_lines

EXIT_MISTAKE = 2
EXIT_INCOMPLETE = 3
EXIT_DIFFERENT = 4
EXIT_NO_ANSWER = 5
EXIT_FAIL = 6
EXIT_INCONCLUSIVE = 7
EXIT_INTERRUPTED = 130


def guarded(command: Callable[[], None]) -> int:
    """Run `command` and return its exit code; an `OrchestratorError` is printed as a message, without a traceback."""
    try:
        with terminable():
            command()
    except Terminated:
        return EXIT_TERMINATED  # the signal handler has already printed the message
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:
            print(STOPPED, file=sys.stderr)
        return end.code if isinstance(end.code, int) else 0
    except OrchestratorError as error:
        print(_message(error), file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    return 0


def _message(error: OrchestratorError) -> str:
    """Return an error for the terminal: each fault on one line, and every line but the first indented."""
    text = str(error)
    for fault in getattr(error, "faults", ()):
        text = text.replace(fault, visible(fault))
    first, *rest = visible_lines(text).split("\n")
    return "\n".join([f"error: {first}", *(line if line.startswith("  ") else f"  {line}" for line in rest)])
