#include "server/connect/json_codec.h"

#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/message.h>
#include <grpcpp/support/slice.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/connect/json_reader.h"
#include "server/connect/json_writer.h"

namespace attend::server {
namespace {

constexpr std::size_t kInlineJsonBytes = 4 << 10;

// The pieces of a ByteBuffer, one after the other.
class SlicesInput final : public google::protobuf::io::ZeroCopyInputStream {
 public:
  explicit SlicesInput(const std::vector<grpc::Slice>& slices) : slices_(slices) {}

  bool Next(const void** data, int* size) override {
    while (next_ < slices_.size() && slices_[next_].size() == 0) ++next_;
    if (next_ == slices_.size()) return false;
    *data = slices_[next_].begin() + used_;
    *size = static_cast<int>(slices_[next_].size() - used_);
    count_ += *size;
    used_ = 0;
    ++next_;
    return true;
  }
  void BackUp(int count) override {
    --next_;
    used_ = slices_[next_].size() - static_cast<std::size_t>(count);
    count_ -= count;
  }
  bool Skip(int /*count*/) override { return false; }  // Readers of JSON do not.
  std::int64_t ByteCount() const override { return count_; }

 private:
  const std::vector<grpc::Slice>& slices_;
  std::size_t next_ = 0;
  std::size_t used_ = 0;  // Of the next one, after BackUp.
  std::int64_t count_ = 0;
};

class JsonSource final : public HttpBody::Source {
 public:
  explicit JsonSource(std::unique_ptr<JsonText> text) : text_(std::move(text)) {}
  std::size_t size() const override { return text_->size(); }
  std::string Next() override { return text_->Next(); }

 private:
  const std::unique_ptr<JsonText> text_;
};

absl::Status TooLong(std::size_t max_bytes) {
  return LimitExceeded(
      "--max-json-bytes",
      absl::StrCat("the response is longer than ", max_bytes,
                   " bytes of JSON (--max-json-bytes); ask for fewer outputs, or in application/proto"));
}

}  // namespace

absl::StatusOr<grpc::ByteBuffer> JsonToBinary(grpc::ByteBuffer& json, const google::protobuf::Descriptor& type) {
  absl::StatusOr<grpc::ByteBuffer> binary = ReadJson(json, type);
  if (binary.ok()) return binary;
  return WithDetails(absl::InvalidArgumentError(absl::StrCat("the request is not the JSON of a ", type.full_name(),
                                                             ": ", binary.status().message())),
                     GetErrorDetails(binary.status()));
}

absl::StatusOr<HttpBody> BinaryToJson(const grpc::ByteBuffer& binary, const google::protobuf::Descriptor& type,
                                      std::size_t max_bytes) {
  // Four bytes of a float are two characters at least.
  if (binary.Length() / 2 > max_bytes) return TooLong(max_bytes);
  const google::protobuf::Message* const prototype =
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(&type);
  std::unique_ptr<google::protobuf::Message> message(prototype->New());
  std::vector<grpc::Slice> slices;
  SlicesInput input(slices);
  if (!binary.Dump(&slices).ok() || !message->ParseFromZeroCopyStream(&input)) {
    return absl::InternalError(absl::StrCat("the response is no ", type.full_name()));
  }
  std::unique_ptr<JsonText> text = JsonText::Of(std::move(message), max_bytes);
  if (text == nullptr) return TooLong(max_bytes);
  return HttpBody::Of(std::make_unique<JsonSource>(std::move(text)));
}

RequestMethod JsonMethod(const RequestMethod& method, const google::protobuf::MethodDescriptor& descriptor) {
  RequestMethod json = method;
  json.transcode = [type = descriptor.input_type()](grpc::ByteBuffer& sent) { return JsonToBinary(sent, *type); };
  json.inline_decode_bytes = method.refusable ? 0 : kInlineJsonBytes;
  json.decode_memory = kJsonMemory;
  json.answer_memory = kJsonAnswerMemory;
  return json;
}

}  // namespace attend::server
