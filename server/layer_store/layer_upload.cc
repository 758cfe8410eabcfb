#include "server/layer_store/layer_upload.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/layers/layer.h"
#include "server/layers/layer_config.h"
#include "server/layers/layer_registry.h"
#include "server/layers/layer_weights.h"

namespace attend::server {
namespace {

bool IsSha256(const std::string& text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

absl::Status WithoutMeaning(const std::string& field, const char* why) {
  return InvalidField(field, absl::StrCat(field, " is set, but ", why));
}

absl::Status CheckSeeded(const v1::CreateLayerHeader& header, const LayerLimits& limits) {
  const char* why = "there are no bytes that it could be about, because `init` makes the weights";
  if (!header.prefix().empty()) return WithoutMeaning("header.prefix", why);
  if (!header.sha256().empty()) return WithoutMeaning("header.sha256", why);
  if (!header.config().ignored_tensors().empty()) return WithoutMeaning("header.config.ignored_tensors", why);
  const std::int64_t dim = header.init().embed_dim();
  if (dim < 1 || dim > kMaxSeededEmbedDim || SeededWeightBytes(dim) <= limits.max_layer_bytes) return absl::OkStatus();
  return LimitExceeded("--max-layer-bytes", absl::StrCat("the weights would have ", SeededWeightBytes(dim),
                                                         " bytes; this server takes at "
                                                         "most ",
                                                         limits.max_layer_bytes, " for a layer (--max-layer-bytes)"));
}

}  // namespace

absl::Status CheckUploadHeader(const v1::CreateLayerHeader& header, const LayerLimits& limits) {
  if (absl::Status name = CheckLayerName(header.name(), "header.name"); !name.ok()) return name;
  if (!header.etag().empty() && !header.replace()) {
    return WithoutMeaning("header.etag", "without `replace` there is no layer that it could be about");
  }
  if (!header.sha256().empty() && !IsSha256(header.sha256())) {
    return InvalidField("header.sha256", "header.sha256 is not 64 lower-case hexadecimal digits");
  }
  if (absl::Status options = CheckAreLayerOptions(header.config().options()); !options.ok()) {
    return PrefixField("header", options);
  }
  if (absl::Status rotary = CheckRotaryHasEffect(header.config()); !rotary.ok()) return PrefixField("header", rotary);
  if (absl::Status names = CheckIgnoredTensors(header.config()); !names.ok()) return PrefixField("header", names);
  return header.has_init() ? CheckSeeded(header, limits) : absl::OkStatus();
}

absl::Status LayerUpload::Append(absl::Span<const std::string_view> pieces) {
  if (header_.has_init()) {
    return InvalidField("chunk", "a chunk follows a header with `init`, which makes the weights without any");
  }
  std::int64_t bytes = file_.payload_bytes();
  for (const std::string_view piece : pieces) bytes += static_cast<std::int64_t>(piece.size());
  if (bytes > max_bytes_) {
    return LimitExceeded("--max-layer-bytes", absl::StrCat("the file has more bytes than the ", max_bytes_,
                                                           " that this server takes for a layer (--max-layer-bytes)"));
  }
  return file_.Append(pieces);
}

absl::StatusOr<LayerRecord> LayerUpload::MakeRecord() {
  if (!header_.has_init() && file_.payload_bytes() == 0) {
    return InvalidField("chunk", "no bytes followed the header; it needs chunks of a .safetensors file, or `init`");
  }
  LayerRecord record;
  record.create_time_ms = absl::ToUnixMillis(absl::Now());
  record.tenant = owner_.tenant;
  v1::CreateLayerHeader& header = record.header;
  header = header_;
  header.clear_replace();
  header.clear_etag();
  header.set_sha256(header.has_init() ? "" : formats::ToHex(file_.FinishHash()));
  const absl::StatusOr<std::string> bytes = SerializeRecord(record);
  if (!bytes.ok()) return bytes.status();
  header.set_etag(formats::ToHex(formats::Sha256::Of(*bytes)).substr(0, kEtagDigits));
  if (header_.sha256().empty() || header_.sha256() == header.sha256()) return record;
  return WithDetails(absl::DataLossError(absl::StrCat("the bytes that arrived have the SHA-256 ", header.sha256(),
                                                      ", but header.sha256 is ", header_.sha256())),
                     {.reason = reason::kChecksumMismatch, .field = "header.sha256", .metadata = {}});
}

}  // namespace attend::server
