#include "server/layer_store/layer_upload.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/base/error.h"
#include "core/layer/projection.h"
#include "formats/safetensors/checkpoint.h"
#include "server/layers/layer_name.h"
#include "server/layers/layer_weights.h"
#include "server/layers/seeded_weights.h"

namespace attend::server {
namespace {

constexpr std::size_t kEtagBytes = 32;

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
  const std::int64_t dim = header.init().embed_dim();
  if (dim < 1 || dim > kMaxSeededEmbedDim || SeededWeightBytes(dim) <= limits.max_layer_bytes) return absl::OkStatus();
  return LimitExceeded("--max-layer-bytes", absl::StrCat("the weights would have ", SeededWeightBytes(dim),
                                                         " bytes; this server takes at "
                                                         "most ",
                                                         limits.max_layer_bytes, " for a layer (--max-layer-bytes)"));
}

absl::Status CheckHeader(const v1::CreateLayerHeader& header, const LayerLimits& limits) {
  if (absl::Status name = CheckLayerName(header.name(), "header.name"); !name.ok()) return name;
  if (!header.etag().empty() && !header.replace()) {
    return WithoutMeaning("header.etag", "without `replace` there is no layer that it could be about");
  }
  if (!header.sha256().empty() && !IsSha256(header.sha256())) {
    return InvalidField("header.sha256", "header.sha256 is not 64 lower-case hexadecimal digits");
  }
  return header.has_init() ? CheckSeeded(header, limits) : absl::OkStatus();
}

// An error of the checkpoint's or the layer's as one of the upload's.
absl::Status AboutBytes(const absl::Status& status) {
  const std::string field = GetErrorDetails(status).field;
  if (absl::StartsWith(field, "config.")) return PrefixField("header", status);
  return field.empty() ? InvalidField("chunk", std::string(status.message())) : status;
}

absl::StatusOr<LayerWeights> FindWeights(const v1::CreateLayerHeader& header, const SharedBytes& payload) {
  const absl::StatusOr<formats::Checkpoint> checkpoint = formats::Checkpoint::FromBytes(payload.bytes, payload.memory);
  if (!checkpoint.ok()) return AboutBytes(checkpoint.status());
  absl::StatusOr<LayerWeights> weights = FindLayer(*checkpoint, header.prefix(), header.config());
  return weights.ok() ? std::move(weights) : AboutBytes(weights.status());
}

// What the projections of a layer will take: FLOAT64 is kept as it is, all else packed.
std::int64_t MemoryBytes(const LayerWeights& weights, InstructionSet instruction_set) {
  std::int64_t bytes = 0;
  for (const LinearView* linear : {&weights.query, &weights.key, &weights.value, &weights.output}) {
    if (!linear->present()) continue;
    bytes += linear->weight_type == DataType::kFloat64 ? 8 * linear->out_features * (linear->in_features + 1)
                                                       : PackedLinear::BytesFor(*linear, instruction_set);
  }
  return bytes;
}

// Weights are views of bytes that are there already, but those of `init` are made: they ask before.
absl::StatusOr<LayerWeights> LoadWeights(const v1::CreateLayerHeader& header, const SharedBytes& payload,
                                         InstructionSet instruction_set,
                                         absl::FunctionRef<absl::Status(std::int64_t bytes)> may_take) {
  const std::int64_t dim = header.init().embed_dim();
  if (header.has_init() && dim >= 1 && dim <= kMaxSeededEmbedDim) {
    const float any = 0;  // Never read.
    const LinearView linear{.weight = &any, .bias = &any, .out_features = dim, .in_features = dim};
    if (absl::Status may = may_take(3 * PackedLinear::BytesFor(linear, instruction_set)); !may.ok()) return may;
  }
  if (header.has_init()) {
    absl::StatusOr<LayerWeights> weights = SeededLayer(header.init());
    return weights.ok() ? std::move(weights) : PrefixField("header", weights.status());
  }
  absl::StatusOr<LayerWeights> weights = FindWeights(header, payload);
  if (!weights.ok()) return weights;
  if (absl::Status may = may_take(MemoryBytes(*weights, instruction_set)); !may.ok()) return may;
  return weights;
}

std::string Origin(const v1::CreateLayerHeader& header) {
  return header.has_init() ? absl::StrCat("init seed ", header.init().seed()) : "upload";
}

absl::Status Cancelled() { return absl::CancelledError("the caller cancelled the upload"); }

}  // namespace

absl::StatusOr<LayerUpload> LayerUpload::Start(LayerStore& store, v1::CreateLayerHeader header) {
  if (absl::Status checked = CheckHeader(header, store.limits()); !checked.ok()) return checked;
  if (absl::Status may = store.CheckMayCreate(header); !may.ok()) return may;
  absl::StatusOr<NewLayerFile> file = store.storage_->Create();
  if (!file.ok()) return file.status();
  return LayerUpload(store, std::move(header), *std::move(file));
}

absl::Status LayerUpload::Append(absl::Span<const std::string_view> pieces) {
  if (header_.has_init()) {
    return InvalidField("chunk", "a chunk follows a header with `init`, which makes the weights without any");
  }
  std::int64_t bytes = file_.payload_bytes();
  for (const std::string_view piece : pieces) bytes += static_cast<std::int64_t>(piece.size());
  if (bytes > store_->limits().max_layer_bytes) {
    return LimitExceeded("--max-layer-bytes",
                         absl::StrCat("the file has more bytes than the ", store_->limits().max_layer_bytes,
                                      " that this server takes for a layer (--max-layer-bytes)"));
  }
  return file_.Append(pieces);
}

LayerRecord LayerUpload::MakeRecord() {
  LayerRecord record;
  record.set_create_time_ms(absl::ToUnixMillis(absl::Now()));
  v1::CreateLayerHeader& header = *record.mutable_header();
  header = header_;
  header.clear_replace();
  header.clear_etag();
  header.set_sha256(header.has_init() ? "" : ToHex(file_.FinishHash()));
  header.set_etag(ToHex(Sha256::Of(record.SerializeAsString())).substr(0, kEtagBytes));
  return record;
}

absl::StatusOr<std::shared_ptr<const Layer>> LayerUpload::Finish(const std::atomic<bool>& cancelled,
                                                                 Executor& executor) {
  if (!header_.has_init() && file_.payload_bytes() == 0) {
    return InvalidField("chunk", "no bytes followed the header; it needs chunks of a .safetensors file, or `init`");
  }
  const LayerRecord record = MakeRecord();
  if (!header_.sha256().empty() && header_.sha256() != record.header().sha256()) {
    return WithDetails(
        absl::DataLossError(absl::StrCat("the bytes that arrived have the SHA-256 ", record.header().sha256(),
                                         ", but header.sha256 is ", header_.sha256())),
        {.reason = "CHECKSUM_MISMATCH", .field = "header.sha256", .metadata = {}});
  }
  const absl::StatusOr<SharedBytes> payload = file_.Map();
  if (!payload.ok()) return payload.status();
  std::optional<LayerStore::Reservation> reservation;
  absl::StatusOr<std::shared_ptr<const Layer>> layer = LoadLayer(
      record, *payload, store_->options_.instruction_set, store_->log_,
      [&](std::int64_t bytes) {
        if (cancelled.load()) return Cancelled();
        absl::StatusOr<LayerStore::Reservation> reserved = store_->Reserve(header_.name(), bytes);
        if (!reserved.ok()) return reserved.status();
        reservation.emplace(*std::move(reserved));
        return absl::OkStatus();
      },
      &executor);
  if (!layer.ok()) return layer.status();
  if (cancelled.load()) return Cancelled();
  if (absl::Status sealed = file_.Seal(record); !sealed.ok()) return sealed;
  if (cancelled.load()) return Cancelled();
  if (absl::Status kept = store_->Commit(header_, file_, *layer, *reservation); !kept.ok()) return kept;
  return layer;
}

absl::StatusOr<std::shared_ptr<const Layer>> LoadLayer(const LayerRecord& record, const SharedBytes& payload,
                                                       InstructionSet instruction_set, Log& log,
                                                       absl::FunctionRef<absl::Status(std::int64_t bytes)> may_take,
                                                       Executor* executor) {
  const absl::Time start = absl::Now();
  const v1::CreateLayerHeader& header = record.header();
  const absl::StatusOr<LayerWeights> weights = LoadWeights(header, payload, instruction_set, may_take);
  if (!weights.ok()) return weights.status();
  Layer::Identity identity{.name = header.name(),
                           .origin = Origin(header),
                           .sha256 = header.sha256(),
                           .etag = header.etag(),
                           .read_only = false,
                           .create_time_ms = record.create_time_ms()};
  const absl::Time found = absl::Now();
  absl::StatusOr<std::shared_ptr<const Layer>> layer =
      Layer::Create(*weights, header.config(), std::move(identity), instruction_set, executor);
  if (!layer.ok()) return AboutBytes(layer.status());
  log.Info("layer loaded", {{"layer", header.name()},
                            {"origin", Origin(header)},
                            {"memory_bytes", std::int64_t{(*layer)->description().memory_bytes()}},
                            {"finding_ms", absl::ToDoubleMilliseconds(found - start)},
                            {"packing_ms", absl::ToDoubleMilliseconds(absl::Now() - found)}});
  return layer;
}

}  // namespace attend::server
