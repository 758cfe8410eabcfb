#include "client/lib/layer_pages.h"

namespace attend::client {

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
