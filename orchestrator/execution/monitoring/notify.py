"""A call at the end of a sweep: a POST with the answer. A failed one is said and costs nothing."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from orchestrator.core.errors import UsageError

_SECONDS = 10.0


def check_address(url: str) -> str:
    """Return an address to which the answer can be sent.

    Raises:
        UsageError: if it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--notify: expected an address such as https://example.org/hook, got '{url}'; correct it")
    return url


def notify(url: str, event: str, run: str, content: dict[str, Any]) -> str:
    """Send what happened and return what went wrong, empty if nothing did.

    Args:
        url: where to.
        event: `end`, `incomplete` or `halt`.
        run: the run folder.
        content: what else is sent.
    """
    body = json.dumps({"event": event, "run": run, **content}, allow_nan=False).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with _opener().open(request, timeout=_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        host = urlsplit(url).hostname  # the rest of the address may be a secret
        return f"--notify: {host} did not take the answer ({reason}); the sweep is complete all the same"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """Follow no redirect: the answer goes where the user said, or nowhere."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)
