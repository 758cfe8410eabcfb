#include "client/lib/layer_client.h"

#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attend/v1/layer_service.grpc.pb.h"
#include "client/lib/call.h"
#include "client/lib/channel.h"
#include "client/lib/server_version.h"

namespace attend::client {
namespace {

using internal::Call;
using internal::CheckSize;

constexpr std::int64_t kMaxChunkBytes = std::int64_t{1} << 30;

// Fills `buffer` with the next bytes and returns how many there were; 0 at the end. Errors: DATA_LOSS.
using ReadChunk = std::function<absl::StatusOr<std::int64_t>(char* buffer, std::int64_t size)>;

absl::Status CheckUpload(const v1::CreateLayerHeader& header, const UploadOptions& options) {
  if (header.has_init()) {
    return absl::InvalidArgumentError("header.init is set; the server makes these weights itself: use CreateSeeded");
  }
  if (options.chunk_bytes >= 1 && options.chunk_bytes <= kMaxChunkBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("chunk_bytes is ", options.chunk_bytes, "; it must be in [1, ", kMaxChunkBytes, "]"));
}

// What is left of a stream; nullopt when that cannot be known.
std::optional<std::int64_t> BytesLeft(std::istream& in) {
  const std::istream::pos_type here = in.tellg();
  if (here == std::istream::pos_type(-1)) {
    in.clear();
    return std::nullopt;
  }
  in.seekg(0, std::ios::end);
  const std::istream::pos_type end = in.tellg();
  in.clear();
  in.seekg(here);
  if (end == std::istream::pos_type(-1) || end < here) return std::nullopt;
  return static_cast<std::int64_t>(end - here);
}

// Where uploads go.
struct Destination {
  v1::LayerService::Stub& stub;
  std::int64_t max_message_bytes;
};

// One upload under way. The writer's refusal to take more means that the call has ended; why, Finish says.
class Upload {
 public:
  Upload(const Destination& destination, const UploadOptions& options, std::optional<std::int64_t> total)
      : destination_(destination), options_(options) {
    progress_.total_bytes = total;
  }

  grpc::Status Run(const v1::CreateLayerHeader& header, const ReadChunk& read, grpc::ClientContext* context,
                   v1::CreateLayerResponse* response) {
    const std::unique_ptr<Writer> writer = destination_.stub.CreateLayer(context, response);
    v1::CreateLayerRequest message;
    *message.mutable_header() = header;
    bool complete = false;
    if (Write(message, *writer)) complete = SendChunks(read, writer.get(), &message) && writer->WritesDone();
    if (!own_error_.ok()) context->TryCancel();
    grpc::Status status = writer->Finish();
    if (own_error_.ok() && status.ok() && !complete) {
      own_error_ = absl::InternalError("the server accepted the upload before it had all of it");
    }
    return status;
  }

  // Why this side gave up, if it did.
  const absl::Status& own_error() const { return own_error_; }

 private:
  using Writer = grpc::ClientWriter<v1::CreateLayerRequest>;

  // False when it was not sent.
  bool Write(const v1::CreateLayerRequest& message, Writer& writer) {
    own_error_ = CheckSize(message, destination_.max_message_bytes);
    return own_error_.ok() && writer.Write(message);
  }

  // False when not everything was sent.
  bool SendChunks(const ReadChunk& read, Writer* writer, v1::CreateLayerRequest* message) {
    while (true) {
      std::string* chunk = message->mutable_chunk();
      chunk->resize(static_cast<std::size_t>(options_.chunk_bytes));
      const absl::StatusOr<std::int64_t> size = read(chunk->data(), options_.chunk_bytes);
      own_error_ = size.status();
      if (!own_error_.ok() || *size == 0) return own_error_.ok();
      chunk->resize(static_cast<std::size_t>(*size));
      if (!Write(*message, *writer)) return false;
      progress_.sent_bytes += *size;
      if (options_.on_progress == nullptr || options_.on_progress(progress_)) continue;
      own_error_ = absl::CancelledError("the upload was given up");
      return false;
    }
  }

  const Destination& destination_;
  const UploadOptions& options_;
  UploadProgress progress_;
  absl::Status own_error_;
};

// What the upload that follows has left of `options`. Errors: UNIMPLEMENTED when the server would ignore a field of
// `header`, before anything is uploaded or replaced; DEADLINE_EXCEEDED when nothing is left.
absl::StatusOr<CallOptions> CheckUnderstood(v1::AttentionService::Stub& stub, const v1::CreateLayerHeader& header,
                                            const CallOptions& options) {
  if (absl::Status status = internal::CheckTimeout(options); !status.ok()) return status;
  const std::string field = internal::FieldUnknownTo01(header);
  if (field.empty()) return options;
  const absl::Time deadline = absl::Now() + options.timeout;
  if (!internal::IsVersion01(stub, deadline)) {
    CallOptions left = options;
    left.timeout = deadline - absl::Now();
    if (left.timeout > absl::ZeroDuration()) return left;
    return absl::DeadlineExceededError("the server did not say in time whether it knows all of the layer's fields");
  }
  return internal::UnknownField(
      stub, deadline, absl::StrCat("header.", field),
      "the layer would be another one and was not uploaded; leave the field out, or upload it to "
      "a newer server");
}

// `options` with the time that the look at the server's version leaves. Errors: those of both checks.
absl::StatusOr<UploadOptions> PrepareUpload(v1::AttentionService::Stub& stub, const v1::CreateLayerHeader& header,
                                            const UploadOptions& options) {
  if (absl::Status status = CheckUpload(header, options); !status.ok()) return status;
  const absl::StatusOr<CallOptions> call = CheckUnderstood(stub, header, options.call);
  if (!call.ok()) return call.status();
  UploadOptions left = options;
  left.call = *call;
  return left;
}

LayerClient::Created RunUpload(const Destination& destination, const v1::CreateLayerHeader& header,
                               std::optional<std::int64_t> total, const UploadOptions& options, const ReadChunk& read) {
  Upload upload(destination, options, total);
  LayerClient::Created created =
      Call<v1::CreateLayerResponse>(options.call, [&](grpc::ClientContext* context, v1::CreateLayerResponse* response) {
        return upload.Run(header, read, context, response);
      });
  if (!upload.own_error().ok()) return upload.own_error();
  return created;
}

}  // namespace

struct LayerClient::Stubs {
  explicit Stubs(const Channels& channels)
      : attention(channels.calls),
        calls(channels.calls),
        uploads(channels.uploads),
        max_message_bytes(channels.max_message_bytes) {}

  v1::AttentionService::Stub attention;
  v1::LayerService::Stub calls;
  v1::LayerService::Stub uploads;
  std::int64_t max_message_bytes;
};

LayerClient::LayerClient(const Client& client) : stubs_(std::make_shared<Stubs>(client.channels())) {}

LayerClient::Created LayerClient::Create(const v1::CreateLayerHeader& header, std::istream& in,
                                         const UploadOptions& options) const {
  const absl::StatusOr<UploadOptions> left = PrepareUpload(stubs_->attention, header, options);
  if (!left.ok()) return left.status();
  return RunUpload({stubs_->uploads, stubs_->max_message_bytes}, header, BytesLeft(in), *left,
                   [&in](char* buffer, std::int64_t size) -> absl::StatusOr<std::int64_t> {
                     in.read(buffer, size);
                     if (in.bad()) return absl::DataLossError("reading what is to be uploaded failed");
                     return static_cast<std::int64_t>(in.gcount());
                   });
}

LayerClient::Created LayerClient::CreateFromFile(const v1::CreateLayerHeader& header, const std::string& path,
                                                 const UploadOptions& options) const {
  std::ifstream in(path, std::ios::binary);
  // A folder can be opened, but has nothing to read.
  if (!in.is_open() || in.peek() == std::ifstream::traits_type::eof()) {
    return absl::NotFoundError(absl::StrCat(path, in.bad() ? " cannot be read" : " cannot be opened, or is empty"));
  }
  return Create(header, in, options);
}

LayerClient::Created LayerClient::CreateFromBytes(const v1::CreateLayerHeader& header, std::string_view bytes,
                                                  const UploadOptions& options) const {
  const absl::StatusOr<UploadOptions> left = PrepareUpload(stubs_->attention, header, options);
  if (!left.ok()) return left.status();
  return RunUpload({stubs_->uploads, stubs_->max_message_bytes}, header, static_cast<std::int64_t>(bytes.size()), *left,
                   [rest = bytes](char* buffer, std::int64_t size) mutable -> absl::StatusOr<std::int64_t> {
                     const std::size_t taken = rest.copy(buffer, static_cast<std::size_t>(size));
                     rest.remove_prefix(taken);
                     return static_cast<std::int64_t>(taken);
                   });
}

LayerClient::Created LayerClient::CreateSeeded(const v1::CreateLayerHeader& header, const CallOptions& options) const {
  if (!header.has_init()) return absl::InvalidArgumentError("header.init is not set: without it bytes are uploaded");
  v1::CreateLayerRequest message;
  *message.mutable_header() = header;
  if (absl::Status status = CheckSize(message, stubs_->max_message_bytes); !status.ok()) return status;
  const absl::StatusOr<CallOptions> left = CheckUnderstood(stubs_->attention, header, options);
  if (!left.ok()) return left.status();
  return Call<v1::CreateLayerResponse>(*left, [&](grpc::ClientContext* context, v1::CreateLayerResponse* response) {
    const auto writer = stubs_->uploads.CreateLayer(context, response);
    if (writer->Write(message)) writer->WritesDone();
    return writer->Finish();
  });
}

absl::StatusOr<CallResult<v1::GetLayerResponse>> LayerClient::Get(const std::string& name,
                                                                  const CallOptions& options) const {
  v1::GetLayerRequest request;
  request.set_name(name);
  if (absl::Status status = CheckSize(request, stubs_->max_message_bytes); !status.ok()) return status;
  return Call<v1::GetLayerResponse>(options, [&](grpc::ClientContext* context, v1::GetLayerResponse* response) {
    return stubs_->calls.GetLayer(context, request, response);
  });
}

absl::StatusOr<CallResult<v1::ListLayersResponse>> LayerClient::List(const v1::ListLayersRequest& request,
                                                                     const CallOptions& options) const {
  if (absl::Status status = CheckSize(request, stubs_->max_message_bytes); !status.ok()) return status;
  return Call<v1::ListLayersResponse>(options, [&](grpc::ClientContext* context, v1::ListLayersResponse* response) {
    return stubs_->calls.ListLayers(context, request, response);
  });
}

LayerPages LayerClient::Pages(const v1::ListLayersRequest& request, const CallOptions& options) const {
  return LayerPages(
      [client = *this, options](const v1::ListLayersRequest& page) -> LayerPages::Page {
        absl::StatusOr<CallResult<v1::ListLayersResponse>> result = client.List(page, options);
        if (!result.ok()) return result.status();
        return std::move(result->response);
      },
      request);
}

absl::StatusOr<CallResult<v1::DeleteLayerResponse>> LayerClient::Delete(const v1::DeleteLayerRequest& request,
                                                                        const CallOptions& options) const {
  if (absl::Status status = CheckSize(request, stubs_->max_message_bytes); !status.ok()) return status;
  return Call<v1::DeleteLayerResponse>(options, [&](grpc::ClientContext* context, v1::DeleteLayerResponse* response) {
    return stubs_->calls.DeleteLayer(context, request, response);
  });
}

LayerPages::Iterator::Iterator(Fetch fetch, v1::ListLayersRequest request)
    : fetch_(std::move(fetch)), request_(std::move(request)), page_(fetch_(request_)) {}

LayerPages::Iterator& LayerPages::Iterator::operator++() {
  if (!page_.ok() || page_->next_page_token().empty()) {
    at_end_ = true;
  } else if (page_->next_page_token() == request_.page_token()) {
    page_ = absl::InternalError("the server's list of layers goes on where it was: next_page_token repeats itself");
  } else {
    request_.set_page_token(page_->next_page_token());
    page_ = fetch_(request_);
  }
  return *this;
}

}  // namespace attend::client
