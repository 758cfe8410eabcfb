#include "client/lib/server_error.h"

#include <cstdint>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/types/optional.h"
#include "google/protobuf/any.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace attend::client {
namespace {

constexpr char kStatusUrl[] = "type.googleapis.com/google.rpc.Status";
constexpr char kTimingUrl[] = "attend/server-timing";

std::string Payload(const absl::Status& status, const char* url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

void Unpack(const google::protobuf::Any& detail, ServerError* error) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  if (detail.UnpackTo(&info)) {
    error->reason = info.reason();
    error->domain = info.domain();
    error->metadata.insert(info.metadata().begin(), info.metadata().end());
  } else if (detail.UnpackTo(&bad_request)) {
    for (const auto& violation : bad_request.field_violations()) {
      error->field_violations.push_back({violation.field(), violation.description()});
    }
  } else if (detail.UnpackTo(&retry)) {
    error->retry_delay = absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
  }
}

}  // namespace

ServerError GetServerError(const absl::Status& status) {
  ServerError error;
  google::rpc::Status details;
  if (details.ParseFromString(Payload(status, kStatusUrl))) {
    for (const google::protobuf::Any& detail : details.details()) Unpack(detail, &error);
  }
  error.server_timing = ParseServerTiming(Payload(status, kTimingUrl));
  return error;
}

bool AnsweredByServer(const absl::Status& status) {
  return status.GetPayload(kStatusUrl).has_value() || status.GetPayload(kTimingUrl).has_value();
}

namespace internal {

absl::Status WithServerError(absl::Status status, const std::string& status_details, const std::string& server_timing) {
  if (status.ok()) return status;
  google::rpc::Status details;
  if (!status_details.empty() && details.ParseFromString(status_details)) {
    status.SetPayload(kStatusUrl, absl::Cord(status_details));
  }
  if (!server_timing.empty()) status.SetPayload(kTimingUrl, absl::Cord(server_timing));
  return status;
}

}  // namespace internal
}  // namespace attend::client
