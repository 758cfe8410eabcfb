#include "server/services/layer_service.h"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/layers/layer_name.h"
#include "server/services/control_message.h"
#include "server/services/ready_job.h"

namespace attend::server {
namespace {

using JobOr = absl::StatusOr<std::unique_ptr<Job>>;

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

JobOr Get(const LayerRegistry& layers, const grpc::ByteBuffer& bytes) {
  v1::GetLayerRequest request;
  if (absl::Status parsed = ParseControlMessage(bytes, request); !parsed.ok()) return parsed;
  if (absl::Status name = CheckLayerName(request.name(), "name"); !name.ok()) return name;
  const std::shared_ptr<const Layer> layer = layers.Find(request.name());
  if (layer == nullptr) return LayerNotFound(request.name(), "name");
  v1::GetLayerResponse response;
  *response.mutable_layer() = layer->description();
  return std::make_unique<ReadyJob>(SerializeControlMessage(response));
}

absl::Status CheckListRequest(const v1::ListLayersRequest& request) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return InvalidField(
        "page_size", absl::StrCat("page_size is ", request.page_size(), "; it must be between 0 and ", kMaxPageSize));
  }
  // A token is the name of the last layer on the page before. So pages stay right whatever is created or deleted
  // between them.
  if (!request.page_token().empty() && !CheckLayerName(request.page_token(), "page_token").ok()) {
    return InvalidField("page_token", "page_token is not the next_page_token of a page");
  }
  return absl::OkStatus();
}

JobOr List(const LayerRegistry& layers, const grpc::ByteBuffer& bytes) {
  v1::ListLayersRequest request;
  if (absl::Status parsed = ParseControlMessage(bytes, request); !parsed.ok()) return parsed;
  if (absl::Status checked = CheckListRequest(request); !checked.ok()) return checked;
  const auto size = static_cast<std::size_t>(request.page_size() == 0 ? kDefaultPageSize : request.page_size());
  std::vector<std::shared_ptr<const Layer>> page = layers.Page(request.name_prefix(), request.page_token(), size + 1);
  v1::ListLayersResponse response;
  if (page.size() > size) {
    page.pop_back();
    response.set_next_page_token(page.back()->description().name());
  }
  for (const std::shared_ptr<const Layer>& layer : page) *response.add_layers() = layer->description();
  return std::make_unique<ReadyJob>(SerializeControlMessage(response));
}

// Deletes in Compute, on a compute thread, because it waits for the disk.
class DeleteJob final : public Job {
 public:
  DeleteJob(LayerStore& store, v1::DeleteLayerRequest request) : store_(store), request_(std::move(request)) {}

  double flops() const override { return 0; }
  bool may_wait() const override { return true; }
  double memory_bytes() const override { return 0; }  // Too little to count.
  absl::Status Compute(const ComputeContext& /*context*/) override {
    return store_.Delete(request_.name(), request_.etag());
  }
  grpc::ByteBuffer TakeResponse() override { return SerializeControlMessage(v1::DeleteLayerResponse()); }

 private:
  LayerStore& store_;
  const v1::DeleteLayerRequest request_;
};

JobOr Delete(LayerStore& store, const grpc::ByteBuffer& bytes) {
  v1::DeleteLayerRequest request;
  if (absl::Status parsed = ParseControlMessage(bytes, request); !parsed.ok()) return parsed;
  if (absl::Status name = CheckLayerName(request.name(), "name"); !name.ok()) return name;
  return std::make_unique<DeleteJob>(store, std::move(request));
}

}  // namespace

void AddLayerService(const UploadServices& uploads, const RequestServices& requests, MethodTable& methods) {
  const std::string service = "/attend.v1.LayerService/";
  LayerStore& store = *uploads.store;
  const LayerRegistry& layers = store.registry();
  methods.Add(service + "CreateLayer", MakeCreateLayerMethod(uploads));
  methods.Add(service + "GetLayer",
              MakeUnaryMethod(requests, {.decode = [&layers](const grpc::ByteBuffer& request,
                                                             const Limits&) { return Get(layers, request); },
                                         .refusable = false}));
  methods.Add(service + "ListLayers",
              MakeUnaryMethod(requests, {.decode = [&layers](const grpc::ByteBuffer& request,
                                                             const Limits&) { return List(layers, request); },
                                         .refusable = false}));
  methods.Add(service + "DeleteLayer",
              MakeUnaryMethod(requests, {.decode = [&store](const grpc::ByteBuffer& request, const Limits&) {
                                return Delete(store, request);
                              }}));
}

}  // namespace attend::server
