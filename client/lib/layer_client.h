// Layers by name: uploaded once, called from then on with AttendRequest.layer_name.
//
//   LayerClient layers(*client);
//   v1::CreateLayerHeader header;
//   header.set_name("minilm/0");
//   header.set_prefix("encoder.layer.0.");
//   header.mutable_config()->set_num_heads(12);
//   auto created = layers.CreateFromFile(header, "model.safetensors", UploadOptions(absl::Minutes(5)));
//   if (!created.ok()) return created.status();
//   request.set_layer_name("minilm/0");
//
// Messages are those of proto/attend/v1/layer_service.proto, whose comments state ranges, defaults and errors. Get and
// List are repeated as Client's calls are. Uploads and Delete are not: what has happened to an attempt that ended
// without a response, Get says.
//
// Errors of every call: those of Client, and those that the proto documents.
#ifndef ATTEND_CLIENT_LIB_LAYER_CLIENT_H_
#define ATTEND_CLIENT_LIB_LAYER_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <istream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"
#include "client/lib/client.h"

namespace attend::client {

// The pages of a list of layers as a range:
//
//   for (const absl::StatusOr<v1::ListLayersResponse>& page : layers.Pages({}, options)) {
//     if (!page.ok()) return page.status();
//     for (const v1::Layer& layer : page->layers()) Show(layer);
//   }
//
// An error is the last page. Layers that come or go meanwhile may or may not be seen; all others are seen once.
// Thread-compatible. Each begin() asks anew.
class LayerPages {
 public:
  using Page = absl::StatusOr<v1::ListLayersResponse>;
  using Fetch = std::function<Page(const v1::ListLayersRequest&)>;

  // An input iterator over the pages; views nothing of the range.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Page;
    using difference_type = std::ptrdiff_t;
    using pointer = const Page*;
    using reference = const Page&;

    // Fetches the first page.
    Iterator(Fetch fetch, v1::ListLayersRequest request);

    const Page& operator*() const { return page_; }
    const Page* operator->() const { return &page_; }
    // Fetches the next page. REQUIRES: not at the end.
    Iterator& operator++();
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return at_end_; }

   private:
    Fetch fetch_;
    v1::ListLayersRequest request_;
    Page page_;
    bool at_end_ = false;
  };

  // `fetch` gets one page.
  LayerPages(Fetch fetch, v1::ListLayersRequest request) : fetch_(std::move(fetch)), request_(std::move(request)) {}

  Iterator begin() const { return Iterator(fetch_, request_); }
  static std::default_sentinel_t end() { return std::default_sentinel; }

 private:
  Fetch fetch_;
  v1::ListLayersRequest request_;
};

// How far an upload is.
struct UploadProgress {
  std::int64_t sent_bytes = 0;              // Handed to the connection, of the file's bytes.
  std::optional<std::int64_t> total_bytes;  // Of the whole file; nullopt for a stream that cannot be measured.
};

// How a layer is uploaded.
struct UploadOptions {
  // The deadline counts from the header to the response: it covers sending all bytes, and then storing and packing them
  // in the server.
  explicit UploadOptions(absl::Duration call_timeout) : call(call_timeout) {}

  CallOptions call;

  // The most bytes of a message; in [1, 2^30]. Default: 1 MiB. Memory is about twice that, whatever the file's size.
  std::int64_t chunk_bytes = std::int64_t{1} << 20;

  // Called by the uploading thread after each chunk; false gives the upload up (CANCELLED). Default: none.
  std::function<bool(const UploadProgress&)> on_progress = nullptr;
};

// Thread-safe. Copyable; shares the connections of the client that it was made of, which it may outlive. Uploads have a
// connection of their own.
class LayerClient {
 public:
  // REQUIRES: `client` was not moved from.
  explicit LayerClient(const Client& client);

  using Created = absl::StatusOr<CallResult<v1::CreateLayerResponse>>;

  // Uploads what is left of `in`, a .safetensors file. An upload that the server refuses leaves what was there before,
  // unless the error says that the new layer is in its place: then the server's disk has not promised to keep it. A
  // server that refuses before the last byte is answered at once: its status is returned and the rest stays unread.
  // Errors: INVALID_ARGUMENT for `chunk_bytes`, or a header with `init`, which has no bytes to upload; DATA_LOSS when
  // `in` fails; CANCELLED.
  Created Create(const v1::CreateLayerHeader& header, std::istream& in, const UploadOptions& options) const;

  // Uploads a file, read as it is sent. Errors: NOT_FOUND when it cannot be opened (without the details that a server's
  // NOT_FOUND has).
  Created CreateFromFile(const v1::CreateLayerHeader& header, const std::string& path,
                         const UploadOptions& options) const;

  // Uploads bytes in memory, those of a whole .safetensors file.
  Created CreateFromBytes(const v1::CreateLayerHeader& header, std::string_view bytes,
                          const UploadOptions& options) const;

  // Has the server make the weights that `header.init` asks for. Errors: INVALID_ARGUMENT for a header without it.
  Created CreateSeeded(const v1::CreateLayerHeader& header, const CallOptions& options) const;

  // Describes one layer. Errors: NOT_FOUND.
  absl::StatusOr<CallResult<v1::GetLayerResponse>> Get(const std::string& name, const CallOptions& options) const;

  // Describes the layers of one page.
  absl::StatusOr<CallResult<v1::ListLayersResponse>> List(const v1::ListLayersRequest& request,
                                                          const CallOptions& options) const;

  // All pages from `request` on, fetched as they are read, each call with `options`.
  LayerPages Pages(const v1::ListLayersRequest& request, const CallOptions& options) const;

  // Deletes a layer. Errors: NOT_FOUND, ABORTED when `request.etag` is another's, FAILED_PRECONDITION.
  absl::StatusOr<CallResult<v1::DeleteLayerResponse>> Delete(const v1::DeleteLayerRequest& request,
                                                             const CallOptions& options) const;

 private:
  struct Stubs;

  std::shared_ptr<Stubs> stubs_;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_LAYER_CLIENT_H_
