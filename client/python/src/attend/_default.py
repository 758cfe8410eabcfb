"""The client of functions that take none, as those of attend.torch: one for the process."""

from __future__ import annotations

import threading

from attend._client import Client

_lock = threading.Lock()
_client: Client | None = None


def set_default_client(client: Client | None) -> None:
    """Makes `client` the one that attend.torch and attend.huggingface use; None: a new attend.Client() when it is needed."""
    global _client
    with _lock:
        _client = client


def default_client() -> Client:
    """The client that attend.torch and attend.huggingface use: the one that was set, else attend.Client()."""
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client
