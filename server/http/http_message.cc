#include "server/http/http_message.h"

namespace attend::server {

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

int HttpRequest::CountHeader(std::string_view name) const {
  int count = 0;
  for (const auto& [key, value] : headers) count += key == name ? 1 : 0;
  return count;
}

HttpBody::HttpBody(const std::string& text) {
  if (!text.empty()) slices_.emplace_back(text);
}

HttpBody::HttpBody(const grpc::ByteBuffer& bytes) {
  if (bytes.Valid() && !bytes.Dump(&slices_).ok()) slices_.clear();
}

HttpBody HttpBody::OfStatic(std::string_view bytes) {
  HttpBody body;
  // gRPC takes bytes that may be written; nobody writes to these.
  body.slices_.emplace_back(
      const_cast<char*>(bytes.data()), bytes.size(), [](void*) {}, nullptr);
  return body;
}

HttpBody HttpBody::Of(std::unique_ptr<Source> source) {
  HttpBody body;
  body.source_ = std::move(source);
  return body;
}

std::vector<grpc::Slice> HttpBody::Next() {
  std::vector<grpc::Slice> pieces = std::exchange(slices_, {});
  if (!pieces.empty() || source_ == nullptr) return pieces;
  if (const std::string made = source_->Next(); !made.empty()) pieces.emplace_back(made);
  return pieces;
}

std::size_t HttpBody::size() const {
  std::size_t size = source_ == nullptr ? 0 : source_->size();
  for (const grpc::Slice& slice : slices_) size += slice.size();
  return size;
}

}  // namespace attend::server
