"""attend: attention computed by a server.

    import attend
    client = attend.Client("localhost:50051")
    output = client.sdpa(query, key, value, causal="bottom_right").output

Arrays are NumPy's (with ml_dtypes' bfloat16) or torch CPU tensors; results are of the same kind. attend.aio has the
asynchronous client, attend.torch functions and modules in place of torch's, attend.huggingface an attention for
transformers.
"""

from __future__ import annotations

from pkgutil import extend_path as _extend_path

# Classes that a program has generated from attend's .proto files are `attend.v1`, elsewhere on the path.
__path__ = _extend_path(__path__, __name__)

from attend._calls import Requests
from attend._channel import Tls
from attend._client import Client, Layers
from attend._default import default_client, set_default_client
from attend._errors import (
    AbortedError,
    AlreadyExistsError,
    AttendError,
    AuthenticationError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    ServerTooOldError,
    UnavailableError,
    Violation,
)
from attend._options import Options
from attend._requests import Request
from attend._results import Estimate, LayerInfo, Limits, Receipt, Result, ServerInfo, Timing
from attend._stream import Answer

requests = Requests()
"""Makes requests for client.stream and client.estimate: requests.sdpa and requests.attend take what the client's do."""

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "Answer",
    "AttendError",
    "AuthenticationError",
    "Client",
    "DeadlineExceededError",
    "Estimate",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "LayerInfo",
    "Layers",
    "Limits",
    "NotFoundError",
    "Options",
    "Receipt",
    "Request",
    "Requests",
    "ResourceExhaustedError",
    "Result",
    "ServerInfo",
    "ServerTooOldError",
    "Timing",
    "Tls",
    "UnavailableError",
    "Violation",
    "default_client",
    "requests",
    "set_default_client",
]
