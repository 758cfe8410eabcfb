#include "server/connect/connect_protocol.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/connect/json_values.h"
#include "server/connect/json_writer.h"
#include "server/rpc/status.h"

namespace attend::server {
namespace {

// By absl::StatusCode, which are gRPC's codes.
constexpr struct {
  const char* name;
  int http_status;
} kCodes[] = {
    {"", 200},
    {"canceled", 499},
    {"unknown", 500},
    {"invalid_argument", 400},
    {"deadline_exceeded", 504},
    {"not_found", 404},
    {"already_exists", 409},
    {"permission_denied", 403},
    {"resource_exhausted", 429},
    {"failed_precondition", 400},
    {"aborted", 409},
    {"out_of_range", 400},
    {"unimplemented", 501},
    {"internal", 500},
    {"unavailable", 503},
    {"data_loss", 500},
    {"unauthenticated", 401},
};

constexpr std::size_t kMostTimeoutDigits = 10;
constexpr char kReadablePackage[] =
    "google.rpc";  // Whose details are shown as JSON too; others may have what it cannot.
constexpr std::size_t kUnbounded = ~std::size_t{0};

std::string Unpadded(const std::string& base64) { return base64.substr(0, base64.find('=')); }

void AppendDetail(const google::protobuf::Any& detail, std::string& json) {
  const std::string type = detail.type_url().substr(detail.type_url().rfind('/') + 1);
  absl::StrAppend(&json, "{\"type\":\"", type, "\",\"value\":\"", Unpadded(absl::Base64Escape(detail.value())), "\"");
  const auto* const descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (descriptor != nullptr && descriptor->file()->package() == kReadablePackage) {
    const std::unique_ptr<google::protobuf::Message> message(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
    if (message->ParseFromString(detail.value())) {
      json += ",\"debug\":";
      AppendJson(*message, kUnbounded, json);
    }
  }
  json += '}';
}

absl::Status Malformed(const std::string& why) {
  return WithDetails(absl::InvalidArgumentError(why),
                     {.reason = reason::kMalformedRequest, .field = "", .metadata = {}});
}

}  // namespace

HttpResponse ConnectError(const absl::Status& status) { return ConnectError(ToRpcStatus(status)); }

HttpResponse ConnectError(const google::rpc::Status& status) {
  const auto index = static_cast<std::size_t>(status.code());
  const auto& code = kCodes[index < std::size(kCodes) ? index : static_cast<std::size_t>(absl::StatusCode::kUnknown)];
  std::string json = absl::StrCat("{\"code\":\"", code.name, "\",\"message\":");
  AppendJsonString(status.message(), json);
  json += ",\"details\":[";
  for (int i = 0; i < status.details_size(); ++i) {
    if (i > 0) json += ',';
    AppendDetail(status.details(i), json);
  }
  json += "]}";
  return {.status = code.http_status, .content_type = kJsonType, .body = json};
}

absl::Status CheckConnectHeaders(const HttpRequest& request) {
  for (const char* const once : {"connect-protocol-version", "content-encoding"}) {
    if (request.CountHeader(once) > 1) return Malformed(absl::StrCat("the header ", once, " came more than once"));
  }
  if (const std::string_view version = request.Header("connect-protocol-version"); !version.empty() && version != "1") {
    return Malformed("the header Connect-Protocol-Version must be 1");
  }
  const std::string_view encoding = request.Header("content-encoding");
  if (!encoding.empty() && encoding != "identity") {
    return WithDetails(absl::UnimplementedError("requests must not be compressed: Content-Encoding may be identity"),
                       {.reason = reason::kMalformedRequest, .field = "", .metadata = {}});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::chrono::milliseconds>> ConnectTimeout(const HttpRequest& request) {
  constexpr char kName[] = "connect-timeout-ms";
  const int count = request.CountHeader(kName);
  if (count == 0) return std::nullopt;
  const std::string_view text = request.Header(kName);
  std::int64_t milliseconds = 0;
  if (count > 1 || text.empty() || text.size() > kMostTimeoutDigits ||
      !std::all_of(text.begin(), text.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &milliseconds) || milliseconds == 0) {
    return Malformed("the header Connect-Timeout-Ms must be one positive number of at most ten digits");
  }
  return std::chrono::milliseconds(milliseconds);
}

}  // namespace attend::server
