"""The HTTP door of a Server: Connect's unary calls, and raw requests."""

import base64
import contextlib
import http.client
import json

import grpc
from google.protobuf import json_format

from attend_testing.errors import DETAILS, Failure, failure_of_details
from attend_testing.server import PATIENCE

FLAGS = ("--http-listen", "127.0.0.1:0")
ATTENTION = "/attend.v1.AttentionService/"
JSON, PROTO = "application/json", "application/proto"
FORMS = (JSON, PROTO)

_STATUS = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
    "already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
    "aborted": 409, "out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500,
    "unauthenticated": 401,
}  # fmt: skip
_NO_SUCH_METHOD = 404
_CODES = {("canceled" if code.name == "CANCELLED" else code.name.lower()): code for code in grpc.StatusCode}


class Answer:
    def __init__(self, response):
        self.status, self.body = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}


class HttpError(grpc.RpcError):
    """A Connect error, as the Failure of the same call by gRPC; its debug texts must say what its bytes do."""

    def __init__(self, answer):
        error = json.loads(answer.body)
        super().__init__(error)
        details = []
        for detail in error.get("details", ()):
            value = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4))
            details.append((detail["type"], value, detail["debug"]))
        self.failure = failure_of_details(
            Failure(_CODES[error["code"]], error["message"], answer.headers),
            {name: value for name, value, _ in details},
        )
        expected = _NO_SUCH_METHOD if self.failure.reason == "UNKNOWN_METHOD" else _STATUS[error["code"]]
        if answer.status != expected:
            raise AssertionError(f"{error['code']} came with status {answer.status}")
        for name, value, debug in details:
            message = json_format.Parse(json.dumps(debug), DETAILS[name]())
            if message != DETAILS[name].FromString(value):
                raise AssertionError(f"the debug text of {name} is another: {debug}")


class Door:
    """One connection at a time to the door at `port`; use as a context manager or call close()."""

    def __init__(self, port, connect=None):
        self.port = port
        self._connect = connect or (lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE))
        self._connection = self._connect()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._connection.close()

    def request(self, method, path, body=None, headers=None):
        """An Answer; headers replace the ones that are sent by default, None leaves one out."""
        sent = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
        connection = self._connection
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None and "Content-Length" not in sent and "Transfer-Encoding" not in sent:
            sent["Content-Length"] = str(len(body))
        for name, value in sent.items():
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    connection.putheader(name, one)
        connection.endheaders()
        if body:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(body)
        answer = Answer(connection.getresponse())
        if answer.headers.get("connection") == "close":
            connection.close()
        return answer

    def post(self, method, body, form=JSON, headers=None):
        """`method`: a full path, or one of AttentionService."""
        path = method if method.startswith("/") else ATTENTION + method
        return self.request("POST", path, body, {"Content-Type": form, **(headers or {})})

    def call(self, method, request, response_type, form, headers=None):
        """The response message. Raises HttpError."""
        body = json_format.MessageToJson(request).encode() if form == JSON else request.SerializeToString()
        answer = self.post(method, body, form, headers)
        if answer.status != 200:
            raise HttpError(answer)
        if answer.headers["content-type"] != form:
            raise AssertionError(f"asked in {form}, answered in {answer.headers['content-type']}")
        if form == PROTO:
            return response_type.FromString(answer.body)
        return json_format.Parse(answer.body, response_type())
