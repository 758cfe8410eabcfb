"""What a failed call says: code, sentence, google.rpc details and trailers."""

import dataclasses

import grpc

from attend_testing.stubs import error_details_pb2, status_pb2

DETAILS = {
    message.DESCRIPTOR.full_name: message
    for message in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
}


@dataclasses.dataclass
class Failure:
    code: grpc.StatusCode
    message: str
    trailers: dict
    reason: str = ""
    domain: str = ""
    metadata: dict = dataclasses.field(default_factory=dict)
    violations: list = dataclasses.field(default_factory=list)  # (field, description)
    retry_seconds: float | None = None

    @property
    def fields(self):
        return [field for field, _ in self.violations]


def failure_of(error):
    """The Failure that a grpc.RpcError tells of. Details of an unknown kind, or given twice, are an error."""
    trailers = {entry.key: entry.value for entry in error.trailing_metadata() or ()}
    failure = Failure(error.code(), error.details(), trailers)
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    if status.details and (status.code != error.code().value[0] or status.message != error.details()):
        raise AssertionError(f"the details are those of another error: {status} in {error}")
    details = {}
    for packed in status.details:
        name = packed.type_url.rsplit("/", 1)[1]
        if name in details:
            raise AssertionError(f"{name} is given twice in {status}")
        details[name] = packed.value
    return failure_of_details(failure, details)


def failure_of_details(failure, serialized):
    """`failure` with what its details say: {full name: bytes}."""
    details = {name: DETAILS[name].FromString(value) for name, value in serialized.items()}
    if info := details.get("google.rpc.ErrorInfo"):
        failure.reason, failure.domain, failure.metadata = info.reason, info.domain, dict(info.metadata)
    if bad := details.get("google.rpc.BadRequest"):
        failure.violations = [(violation.field, violation.description) for violation in bad.field_violations]
    if retry := details.get("google.rpc.RetryInfo"):
        failure.retry_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return failure


def call_failure(method, request, timeout=60):
    """Calls and returns the Failure; a call that succeeds is an error."""
    try:
        method(request, timeout=timeout)
    except grpc.RpcError as error:
        return failure_of(error)
    raise AssertionError("the call succeeded and should not have")
