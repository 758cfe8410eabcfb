#include "tests/support/raw_stream.h"

#include <google/protobuf/empty.pb.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/impl/codegen/rpc_method.h>

namespace attend::testing {
namespace {

using google::protobuf::UnknownField;
using google::protobuf::internal::WireFormatLite;

// As the fields that google.protobuf.Empty does not know.
StreamAnswer Parse(const std::string& bytes) {
  StreamAnswer answer;
  google::protobuf::Empty fields;
  if (!fields.ParseFromString(bytes)) return answer;
  const google::protobuf::UnknownFieldSet& set = fields.GetReflection()->GetUnknownFields(fields);
  for (int i = 0; i < set.field_count(); ++i) {
    const UnknownField& field = set.field(i);
    switch (field.number()) {
      case 1: answer.id = static_cast<std::int64_t>(field.varint()); break;
      case 2: answer.server_timing = field.length_delimited(); break;
      case 3: answer.attend = field.length_delimited(); break;
      case 4: answer.status.emplace().ParseFromString(field.length_delimited()); break;
      case 5: answer.scaled_dot_product_attention = field.length_delimited(); break;
      default: break;
    }
  }
  return answer;
}

}  // namespace

std::string LengthDelimited(int number, const std::string& payload) {
  std::string field;
  {
    google::protobuf::io::StringOutputStream stream(&field);
    google::protobuf::io::CodedOutputStream out(&stream);
    WireFormatLite::WriteBytes(number, payload, &out);
  }
  return field;
}

RawStream::RawStream(const std::shared_ptr<grpc::Channel>& channel, const char* path,
                     std::chrono::milliseconds timeout) {
  context_.set_deadline(std::chrono::system_clock::now() + timeout);
  using Factory = grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>;
  stream_.reset(Factory::Create(
      channel.get(), grpc::internal::RpcMethod(path, grpc::internal::RpcMethod::BIDI_STREAMING, channel), &context_));
}

bool RawStream::Send(std::int64_t id, const std::string& attend) {
  std::string message;
  {
    google::protobuf::io::StringOutputStream stream(&message);
    google::protobuf::io::CodedOutputStream out(&stream);
    WireFormatLite::WriteInt64(1, id, &out);
  }
  return SendMessage(message + LengthDelimited(3, attend));
}

bool RawStream::SendMessage(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return stream_->Write(grpc::ByteBuffer(&slice, 1));
}

std::optional<StreamAnswer> RawStream::Receive() {
  grpc::ByteBuffer message;
  if (!stream_->Read(&message)) return std::nullopt;
  grpc::Slice flat;
  if (!message.DumpToSingleSlice(&flat).ok()) return std::nullopt;
  return Parse(std::string(reinterpret_cast<const char*>(flat.begin()), flat.size()));
}

std::string RawStream::trailer(const std::string& name) const {
  const auto& trailers = context_.GetServerTrailingMetadata();
  const auto found = trailers.find(name);
  return found == trailers.end() ? "" : std::string(found->second.data(), found->second.size());
}

}  // namespace attend::testing
