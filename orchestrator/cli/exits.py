"""How a command ends: its exit code, and a message where it is not 0."""

from __future__ import annotations

import sys
from collections.abc import Callable

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.signals import EXIT_TERMINATED, STOPPED, Terminated, terminable
from orchestrator.core.text import visible, visible_lines

EXIT_MISTAKE = 2
EXIT_INCOMPLETE = 3
EXIT_DIFFERENT = 4
EXIT_INTERRUPTED = 130


def guarded(command: Callable[[], None]) -> int:
    """Run `command` and return the exit code: a mistake of the user's is a message, never a traceback."""
    try:
        with terminable():
            command()
    except Terminated:
        return EXIT_TERMINATED  # the signal's handler has said it
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
    """Return an error as a terminal may be given it: a fault is a line, and only the first line begins at the edge."""
    text = str(error)
    for fault in getattr(error, "faults", ()):
        text = text.replace(fault, visible(fault))
    first, *rest = visible_lines(text).split("\n")
    return "\n".join([f"error: {first}", *(line if line.startswith("  ") else f"  {line}" for line in rest)])
