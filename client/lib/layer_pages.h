// The pages of a list of layers as a range:
//
//   for (const absl::StatusOr<v1::ListLayersResponse>& page : layers.Pages({}, options)) {
//     if (!page.ok()) return page.status();
//     for (const v1::Layer& layer : page->layers()) Show(layer);
//   }
//
// An error is the last page. Layers that come or go meanwhile may or may not be seen; all others are seen once.
#ifndef ATTEND_CLIENT_LIB_LAYER_PAGES_H_
#define ATTEND_CLIENT_LIB_LAYER_PAGES_H_

#include <cstddef>
#include <functional>
#include <iterator>
#include <utility>

#include "absl/status/statusor.h"
#include "attend/v1/layer_service.pb.h"

namespace attend::client {

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

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_LAYER_PAGES_H_
