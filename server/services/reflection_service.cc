#include "server/services/reflection_service.h"

#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "server/base/protocol.h"
#include "server/rpc/status.h"
#include "server/services/control_method.h"

namespace attend::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::FileDescriptorResponse;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

void SetError(grpc::StatusCode code, std::string message, ServerReflectionResponse& response) {
  response.mutable_error_response()->set_error_code(code);
  response.mutable_error_response()->set_error_message(std::move(message));
}

void AppendFile(const FileDescriptor& file, std::set<const FileDescriptor*>& seen, FileDescriptorResponse& files) {
  if (!seen.insert(&file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  file.CopyJsonNameTo(&proto);  // Otherwise grpcurl prints proto names where JSON has its own.
  files.add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) AppendFile(*file.dependency(i), seen, files);
}

// The file and all that it imports.
FileDescriptorResponse FilesFrom(const FileDescriptor& file) {
  FileDescriptorResponse files;
  std::set<const FileDescriptor*> seen;
  AppendFile(file, seen, files);
  return files;
}

void SetExtensionNumbers(const DescriptorPool& pool, const std::string& type_name, ServerReflectionResponse& response) {
  const Descriptor* type = pool.FindMessageTypeByName(type_name);
  if (type == nullptr) return SetError(grpc::StatusCode::NOT_FOUND, "this server does not know " + type_name, response);
  std::vector<const FieldDescriptor*> extensions;
  pool.FindAllExtensions(type, &extensions);
  auto* numbers = response.mutable_all_extension_numbers_response();
  numbers->set_base_type_name(type_name);
  for (const FieldDescriptor* extension : extensions) numbers->add_extension_number(extension->number());
}

// Question, answer, until the client has no more.
class ReflectionCall final : public CallHandler {
 public:
  // Reserving nothing never fails.
  ReflectionCall(const Reflection& reflection, MemoryBudget& memory)
      : reflection_(reflection), budget_(memory), memory_(*memory.Reserve(0)) {}

  void OnStart(Call& call) override { call.Read(); }

  void OnRead(Call& call, grpc::ByteBuffer* message) override {
    if (message == nullptr) return call.Finish(call.cancelled() ? call.CancelledStatus() : absl::OkStatus());
    if (call.finished()) return;
    // Names of symbols and files; the answer has them again.
    if (message->Length() > kMaxQuestionBytes) return call.Finish(QuestionTooLong(message->Length()));
    ServerReflectionRequest request;
    if (absl::Status parsed = ParseControlMessage(*message, request); !parsed.ok()) return call.Finish(parsed);
    message->Clear();
    if (absl::Status room = CheckRoom(); !room.ok()) return call.Finish(room);
    const ServerReflectionResponse answer = reflection_.Answer(request);
    // Twice the bytes: once as a message, once in the transport.
    if (absl::Status enough = memory_.Resize(2 * static_cast<double>(answer.ByteSizeLong())); !enough.ok()) {
      return call.Finish(enough);
    }
    call.Write(SerializeControlMessage(answer));
  }

  void OnWritten(Call& call, bool ok) override {
    memory_.ShrinkTo(0);
    if (ok && !call.finished()) call.Read();
  }

  void OnCancelled(Call& call) override { call.Finish(call.CancelledStatus()); }

 private:
  static constexpr std::size_t kMaxQuestionBytes = 4 << 10;

  static absl::Status QuestionTooLong(std::size_t bytes) {
    return WithDetails(absl::ResourceExhaustedError(absl::StrCat("the question has ", bytes, " bytes; at most ",
                                                                 kMaxQuestionBytes, " are read: it asks for a name")),
                       {.reason = reason::kLimitExceeded,
                        .field = "",
                        .metadata = {{"limit_bytes", absl::StrCat(kMaxQuestionBytes)}}});
  }

  // Most of the budget is for those who compute.
  absl::Status CheckRoom() const {
    if (budget_.in_use_bytes() <= budget_.limit_bytes() / 4) return absl::OkStatus();
    return BusyError(reason::kMemoryBudget,
                     "requests and responses in flight take a quarter of --max-memory-in-flight-bytes, and no more is "
                     "for reflection",
                     /*delay_ms=*/250);
  }

  const Reflection& reflection_;
  MemoryBudget& budget_;
  MemoryBudget::Reservation memory_;  // Of the answer being written.
};

}  // namespace

Reflection::Reflection(std::vector<std::string> services, const google::protobuf::DescriptorPool& pool)
    : services_(std::move(services)), pool_(pool) {
  // Only a mention makes the linker keep the file's descriptors.
  grpc::reflection::v1alpha::ServerReflectionRequest::descriptor();
  for (const std::string& service : services_) {
    const FileDescriptor* file = pool_.FindFileContainingSymbol(service);
    if (file != nullptr && !files_.contains(file)) files_.emplace(file, FilesFrom(*file));
  }
}

void Reflection::SetFile(const FileDescriptor* file, const std::string& asked, Response& response) const {
  if (file == nullptr) return SetError(grpc::StatusCode::NOT_FOUND, "this server does not know " + asked, response);
  const auto made = files_.find(file);
  *response.mutable_file_descriptor_response() = made != files_.end() ? made->second : FilesFrom(*file);
}

void Reflection::SetExtensionFile(const ServerReflectionRequest& request, Response& response) const {
  const auto& asked = request.file_containing_extension();
  const Descriptor* type = pool_.FindMessageTypeByName(asked.containing_type());
  const FieldDescriptor* field =
      type == nullptr ? nullptr : pool_.FindExtensionByNumber(type, asked.extension_number());
  SetFile(field == nullptr ? nullptr : field->file(),
          "extension " + std::to_string(asked.extension_number()) + " of " + asked.containing_type(), response);
}

ServerReflectionResponse Reflection::Answer(const ServerReflectionRequest& request) const {
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      SetFile(pool_.FindFileByName(request.file_by_filename()), request.file_by_filename(), response);
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      SetFile(pool_.FindFileContainingSymbol(request.file_containing_symbol()), request.file_containing_symbol(),
              response);
      break;
    case ServerReflectionRequest::kFileContainingExtension: SetExtensionFile(request, response); break;
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      SetExtensionNumbers(pool_, request.all_extension_numbers_of_type(), response);
      break;
    case ServerReflectionRequest::kListServices:
      for (const std::string& name : services_)
        response.mutable_list_services_response()->add_service()->set_name(name);
      break;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      SetError(grpc::StatusCode::INVALID_ARGUMENT, "the request asks nothing", response);
      break;
  }
  return response;
}

void AddReflectionService(const Reflection& reflection, MemoryBudget& memory, MethodTable& methods) {
  for (const char* version : {"v1", "v1alpha"}) {
    methods.Add(
        std::string("/grpc.reflection.") + version + ".ServerReflection/ServerReflectionInfo",
        {.make_handler = [&reflection, &memory] { return std::make_unique<ReflectionCall>(reflection, memory); },
         .is_stream = true,
         .gives_way = true},
        Roles::Observe());
  }
}

}  // namespace attend::server
