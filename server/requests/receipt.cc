#include "server/requests/receipt.h"

#include <cstdint>

#include "attend/v1/attention_service.pb.h"
#include "server/base/protocol.h"
#include "server/wire/wire_format.h"

namespace attend::server {
namespace {

// Responses of both kinds have their receipt in the same place.
constexpr int kReceiptField = v1::AttendResponse::kReceiptFieldNumber;
static_assert(kReceiptField == v1::ScaledDotProductAttentionResponse::kReceiptFieldNumber);

void AppendText(int field_number, std::string_view text, std::string& out) {
  AppendLengthPrefix(field_number, static_cast<std::int64_t>(text.size()), out);
  out += text;
}

SerializedField ReceiptField(const std::string& receipt) {
  std::string field;
  AppendText(kReceiptField, receipt, field);
  return {field.begin(), field.end()};
}

}  // namespace

Receipts::Receipts(const KernelChoice& kernels)
    : kernels_(kernels), exact_without_etag_(ReceiptField(Fields(FastKernels::kNone))) {}

std::string Receipts::Fields(FastKernels used) const {
  std::string fields;
  AppendText(v1::Receipt::kServerVersionFieldNumber, kVersion, fields);
  AppendText(v1::Receipt::kKernelFieldNumber, KernelName(kernels_.instruction_set, used), fields);
  return fields;
}

SerializedField Receipts::Of(std::string_view layer_etag, FastKernels used) const {
  if (layer_etag.empty() && used == FastKernels::kNone) return exact_without_etag_;
  std::string receipt = Fields(used);
  if (!layer_etag.empty()) AppendText(v1::Receipt::kLayerEtagFieldNumber, layer_etag, receipt);
  return ReceiptField(receipt);
}

}  // namespace attend::server
