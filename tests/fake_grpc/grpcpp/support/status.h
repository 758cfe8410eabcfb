// grpc::Status, for tests/fake_grpc.
#ifndef ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_STATUS_H_
#define ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_STATUS_H_

#include <grpc/status.h>

#include <string>
#include <utility>

namespace grpc {

// gRPC's own codes: grpc_status_code is their C name.
enum StatusCode {
  OK = GRPC_STATUS_OK,
  CANCELLED = GRPC_STATUS_CANCELLED,
  INVALID_ARGUMENT = GRPC_STATUS_INVALID_ARGUMENT,
  DEADLINE_EXCEEDED = GRPC_STATUS_DEADLINE_EXCEEDED,
  NOT_FOUND = GRPC_STATUS_NOT_FOUND,
  ALREADY_EXISTS = GRPC_STATUS_ALREADY_EXISTS,
  RESOURCE_EXHAUSTED = GRPC_STATUS_RESOURCE_EXHAUSTED,
  FAILED_PRECONDITION = GRPC_STATUS_FAILED_PRECONDITION,
  ABORTED = GRPC_STATUS_ABORTED,
  UNIMPLEMENTED = GRPC_STATUS_UNIMPLEMENTED,
  UNAUTHENTICATED = GRPC_STATUS_UNAUTHENTICATED,
  INTERNAL = GRPC_STATUS_INTERNAL,
  UNAVAILABLE = GRPC_STATUS_UNAVAILABLE,
};

class Status {
 public:
  static const Status OK;

  Status() = default;
  Status(StatusCode code, std::string message, std::string details = "")
      : code_(code), message_(std::move(message)), details_(std::move(details)) {}

  bool ok() const { return code_ == StatusCode::OK; }
  StatusCode error_code() const { return code_; }
  const std::string& error_message() const { return message_; }
  const std::string& error_details() const { return details_; }

 private:
  StatusCode code_ = StatusCode::OK;
  std::string message_;
  std::string details_;
};

inline const Status Status::OK;

}  // namespace grpc

#endif  // ATTEND_TESTS_FAKE_GRPC_GRPCPP_SUPPORT_STATUS_H_
