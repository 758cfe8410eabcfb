#include "server/requests/receipt.h"

#include <cstdint>

#include "absl/strings/ascii.h"
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

std::string KernelName(InstructionSet instruction_set) {
  std::string name(InstructionSetName(instruction_set));
  absl::AsciiStrToLower(&name);
  return name;
}

Receipts::Receipts(InstructionSet instruction_set) {
  AppendText(v1::Receipt::kServerVersionFieldNumber, kVersion, fields_);
  AppendText(v1::Receipt::kKernelFieldNumber, KernelName(instruction_set), fields_);
  without_etag_ = ReceiptField(fields_);
}

SerializedField Receipts::Of(std::string_view layer_etag) const {
  if (layer_etag.empty()) return without_etag_;
  std::string receipt = fields_;
  AppendText(v1::Receipt::kLayerEtagFieldNumber, layer_etag, receipt);
  return ReceiptField(receipt);
}

}  // namespace attend::server
