#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "server/base/protocol.h"
#include "server/layers/layer.h"
#include "server/rpc/status.h"
#include "server/services/attend_services.h"
#include "server/services/control_method.h"

namespace attend::server {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

// Of the layers of a page, which is made before its memory is asked for; one layer alone may have more.
constexpr std::size_t kMaxPageBytes = 1 << 20;

absl::StatusOr<v1::GetLayerResponse> Get(const LayerRegistry& layers, const std::string& tenant,
                                         const v1::GetLayerRequest& request) {
  if (absl::Status name = CheckLayerName(request.name(), "name"); !name.ok()) return name;
  const std::shared_ptr<const Layer> layer = layers.Resolve(tenant, request.name());
  if (layer == nullptr) return LayerNotFound(request.name(), "name");
  v1::GetLayerResponse response;
  *response.mutable_layer() = layer->description();
  return response;
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

absl::StatusOr<v1::ListLayersResponse> List(const LayerRegistry& layers, const std::string& tenant,
                                            const v1::ListLayersRequest& request) {
  if (absl::Status checked = CheckListRequest(request); !checked.ok()) return checked;
  const auto size = static_cast<std::size_t>(request.page_size() == 0 ? kDefaultPageSize : request.page_size());
  const std::vector<std::shared_ptr<const Layer>> page =
      layers.Page(tenant, request.name_prefix(), request.page_token(), size + 1);
  v1::ListLayersResponse response;
  std::size_t bytes = 0;
  for (const std::shared_ptr<const Layer>& layer : page) {
    const v1::Layer& description = layer->description();
    bytes += description.ByteSizeLong();
    const auto listed = static_cast<std::size_t>(response.layers_size());
    if (listed == size || (listed > 0 && bytes > kMaxPageBytes)) {
      response.set_next_page_token(response.layers(response.layers_size() - 1).name());
      break;
    }
    *response.add_layers() = description;
  }
  return response;
}

// DeleteLayer. Deletes on an upload thread, because it waits for the disk.
class DeleteLayerCall final : public CallHandler {
 public:
  DeleteLayerCall(const UploadServices& services, std::atomic<int>& deletions)
      : services_(services), deletions_(deletions) {}

  void OnStart(Call& call) override { call.Read(); }

  void OnRead(Call& call, grpc::ByteBuffer* message) override {
    if (message == nullptr) return call.Finish(call.MissingRequestStatus());
    absl::Status status = ParseControlMessage(*message, request_);
    if (status.ok()) status = CheckLayerName(request_.name(), "name");
    if (!status.ok()) return call.Finish(status);
    if (deletions_.fetch_add(1) >= kMaxDeletions ||
        !services_.executor->Submit([this, ref = CallRef(call)] { Delete(*ref); })) {
      deletions_.fetch_sub(1);
      call.Finish(BusyError(reason::kQueueFull, "as many layers are being deleted as this server takes at a time",
                            /*delay_ms=*/100));
    }
  }

 private:
  absl::StatusOr<LayerStore::Deleted> DeleteUnlessCancelled(const Call& call) {
    if (call.cancelled()) return call.CancelledStatus();
    return services_.store->Delete({call.tenant(), request_.name()}, request_.etag());
  }

  void Delete(Call& call) {
    const absl::StatusOr<LayerStore::Deleted> deleted = DeleteUnlessCancelled(call);
    deletions_.fetch_sub(1);
    if (!deleted.ok()) return call.Finish(deleted.status());
    if (services_.audit != nullptr) services_.audit->Layer("layer deleted", call, request_.name(), deleted->etag);
    if (!deleted->kept.ok()) return call.Finish(deleted->kept);
    call.FinishWithResponse(SerializeControlMessage(v1::DeleteLayerResponse()));
  }

  const UploadServices& services_;
  std::atomic<int>& deletions_;
  v1::DeleteLayerRequest request_;
};

}  // namespace

void AddLayerService(const UploadServices& uploads, const RequestServices& requests, MethodTable& methods) {
  const std::string service = "/attend.v1.LayerService/";
  const LayerRegistry& layers = uploads.store->registry();
  methods.Add(service + "CreateLayer", MakeCreateLayerMethod(uploads), Roles::Layers());
  methods.Add(service + "GetLayer",
              MakeUnaryMethod(requests, ControlMethod<v1::GetLayerRequest>(
                                            [&layers](const v1::GetLayerRequest& request, const std::string& tenant) {
                                              return Get(layers, tenant, request);
                                            })),
              Roles::All());
  methods.Add(service + "ListLayers",
              MakeUnaryMethod(requests, ControlMethod<v1::ListLayersRequest>(
                                            [&layers](const v1::ListLayersRequest& request, const std::string& tenant) {
                                              return List(layers, tenant, request);
                                            })),
              Roles::Observe() | Roles::Layers());
  methods.Add(service + "DeleteLayer",
              {.make_handler = [&uploads, deletions = std::make_shared<std::atomic<int>>(
                                              0)] { return std::make_unique<DeleteLayerCall>(uploads, *deletions); }},
              Roles::Layers());
}

}  // namespace attend::server
