// Fuzzes the JSON of the HTTP door: whatever text comes, in pieces, it is refused, or it is a request whose bytes the
// decoder takes or refuses, that protobuf's own reader understands alike if it takes the text, and whose JSON, written
// by this server and read again, has the same bytes. `make fuzz` runs
// it for long; `ctest -R json_fuzz_replay` runs the corpus. The first byte chooses the message and the size of the
// pieces; the rest is the text.

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "attend/v1/attention_service.pb.h"
#include "server/connect/json_codec.h"
#include "server/requests/decoders.h"

namespace {

using attend::server::BinaryToJson;
using attend::server::JsonToBinary;

constexpr std::size_t kUnbounded = std::size_t{1} << 30;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "json_fuzz: %s\n", what);
  std::abort();
}

std::string Flat(attend::server::HttpBody body) {
  const std::size_t size = body.size();
  std::string flat;
  for (std::vector<grpc::Slice> some = body.Next(); !some.empty(); some = body.Next()) {
    for (const grpc::Slice& slice : some) flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  Require(flat.size() == size, "a body that is not as long as it says");
  return flat;
}

std::unique_ptr<google::protobuf::Message> New(const google::protobuf::Descriptor& type) {
  return std::unique_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(&type)->New());
}

// What protobuf's reader makes of the text, if it takes it, is the message of these bytes.
void CheckAgainstProtobuf(const std::string& text, const grpc::ByteBuffer& binary,
                          const google::protobuf::Descriptor& type) {
  const auto ours = New(type), theirs = New(type);
  std::vector<grpc::Slice> slices;
  std::string bytes;
  Require(binary.Dump(&slices).ok(), "bytes that cannot be read");
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  Require(ours->ParseFromString(bytes), "bytes that protobuf does not parse");
  if (text.find("-0") != std::string::npos) return;  // An integer to protobuf, so that the sign is lost.
  if (!google::protobuf::util::JsonStringToMessage(text, theirs.get()).ok()) return;
  Require(ours->SerializeAsString() == theirs->SerializeAsString(), "protobuf reads something else");
}

grpc::ByteBuffer InPieces(const std::uint8_t* data, std::size_t size, std::size_t piece) {
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 0; at < size; at += piece) slices.emplace_back(data + at, std::min(piece, size - at));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > (16 << 10)) return 0;
  const bool attend = data[0] % 2 == 0;
  const google::protobuf::Descriptor& type =
      attend ? *attend::v1::AttendRequest::descriptor() : *attend::v1::ScaledDotProductAttentionRequest::descriptor();
  grpc::ByteBuffer text = InPieces(data + 1, size - 1, 1 + data[0] / 2);
  const auto binary = JsonToBinary(text, type);
  if (!binary.ok()) {
    Require(absl::IsInvalidArgument(binary.status()), "an error of another kind");
    return 0;
  }
  CheckAgainstProtobuf(std::string(reinterpret_cast<const char*>(data + 1), size - 1), *binary, type);
  auto json = BinaryToJson(*binary, type, kUnbounded);
  Require(json.ok(), "bytes that are not the message");
  const std::string flat = Flat(*std::move(json));
  grpc::ByteBuffer written = InPieces(reinterpret_cast<const std::uint8_t*>(flat.data()), flat.size(), flat.size());
  const auto again = JsonToBinary(written, type);
  Require(again.ok(), "our own JSON is refused");
  auto json_again = BinaryToJson(*again, type, kUnbounded);
  Require(json_again.ok() && flat == Flat(*std::move(json_again)), "other JSON the second time");
  attend::server::Limits limits;
  limits.max_request_memory_bytes = limits.max_response_bytes = 1 << 20;
  static const auto attend_decoder = attend::server::AttendDecoder(nullptr);
  static const auto sdpa_decoder = attend::server::SdpaDecoder();
  (void)(attend ? attend_decoder : sdpa_decoder)(*binary, limits);
  return 0;
}
