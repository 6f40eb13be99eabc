"""The exceptions of this package. They are for users to fix, so they are shown without a traceback."""

from __future__ import annotations

from collections.abc import Sequence

ON_WINDOWS = "continual-sweep runs on Linux and macOS. On Windows, install WSL (`wsl --install`) and run it in there."


class OrchestratorError(Exception):
    """Base of every error with a message for the user."""


class UsageError(OrchestratorError):
    """The arguments or options of a command are wrong; holds every fault at once.

    Args:
        faults: one message each.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class SpecError(OrchestratorError):
    """A spec is wrong. Holds every fault.

    Args:
        faults: one message per fault, `PLACE: WHAT IS WRONG; WHAT TO DO`.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"the spec has {count}:\n" + "\n".join(f"  {fault}" for fault in self.faults))


class ModelError(OrchestratorError):
    """A model cannot be imported, built, or used on a stream's examples."""


class DataError(OrchestratorError):
    """Data are missing or damaged. Holds every fault.

    Args:
        faults: one message per fault, in the form of `SpecError`'s.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(faults[0] if len(faults) == 1 else f"the data have {len(faults)} faults:{lines}")


class RunFolderError(OrchestratorError):
    """A run folder is not one, belongs to something else, or was written by a newer version."""


class StorageError(OrchestratorError):
    """A file could not be written or read."""


class ClusterError(OrchestratorError):
    """The cluster cannot be reached or will never have what the spec asks for."""


class MissingExtraError(OrchestratorError):
    """What was asked for needs packages that only an extra brings.

    Args:
        what: what was asked for.
        extra: the extra that brings them.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed; run: pip install 'continual-sweep[{extra}]'")


def system_message(action: str, where: object, error: OSError) -> str:
    """Return a sentence on a refusal by the system or a store, such as `Cannot write to X: permission denied.`

    Append what the user can do about it.

    Args:
        action: what was tried, as it reads after 'Cannot', such as `write to`.
        where: the file, folder or URI, as it may be shown.
        error: what was raised.
    """
    reason = (error.strerror or str(error) or type(error).__name__).strip().rstrip(".")
    first = reason.partition(" ")[0]
    if error.strerror and first[1:].replace("-", "").islower():  # keeps 'I/O error', 'AWS …' and 'NoSuchBucket: …'
        reason = reason[0].lower() + reason[1:]
    return f"Cannot {action} {where}: {reason}."
