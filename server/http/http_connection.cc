#include "server/http/http_connection.h"

#include <string>
#include <utility>

namespace attend::server {
namespace {

namespace http = boost::beast::http;

// The first read asks for no more, so that an idle connection is small.
constexpr std::size_t kFirstReadBytes = 512;
constexpr std::size_t kReadBytes = 4096;

// How long a refused request is read on before the connection is closed.
constexpr std::chrono::seconds kLingerTime(1);

std::string_view PathOf(boost::beast::string_view target) {
  const std::string_view text(target.data(), target.size());
  return text.substr(0, text.find('?'));
}

}  // namespace

void HttpConnection::WaitForRequest() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(options_.max_header_bytes));
  parser_->body_limit(options_.max_body_bytes);
  header_bytes_ = 0;
  if (buffer_.size() > 0) return StartRequest();  // Sent together with the last one.
  buffer_.shrink_to_fit();
  stream_.expires_after(options_.idle_timeout);
  stream_.async_read_some(buffer_.prepare(kFirstReadBytes), [self = shared_from_this()](Error error, std::size_t size) {
    if (error) return self->Close();
    self->buffer_.commit(size);
    self->StartRequest();
  });
}

void HttpConnection::StartRequest() {
  stream_.expires_after(options_.read_timeout);
  Parse();
}

void HttpConnection::ReadMore() {
  stream_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](Error error, std::size_t size) {
    if (error) return self->Close();
    self->buffer_.commit(size);
    self->Parse();
  });
}

void HttpConnection::Parse() {
  while (!parser_->is_done()) {
    if (buffer_.size() == 0) return ReadMore();
    const bool in_header = !parser_->is_header_done();
    parser_->eager(!in_header);  // Stops where the header ends.
    Error error;
    const std::size_t used = parser_->put(buffer_.data(), error);
    buffer_.consume(used);
    const bool incomplete = error == http::error::need_more;
    if (in_header) {
      header_bytes_ += used;
      // Beast bounds each line and not all of them together.
      if (header_bytes_ + (incomplete ? buffer_.size() : 0) > options_.max_header_bytes)
        error = http::error::header_limit;
    }
    if (error && error != http::error::need_more) return RefuseToRead(error);
    if (parser_->is_header_done() && parser_->chunked()) return Refuse(411, "a body must come with its length");
    if (incomplete) return ReadMore();
  }
  Answer();
}

void HttpConnection::RefuseToRead(const Error& error) {
  if (error == http::error::header_limit) return Refuse(431, "the request's header is too long");
  if (error == http::error::body_limit) return Refuse(413, "the request's body is too long");
  Refuse(400, "the request is not HTTP/1.1");
}

void HttpConnection::Answer() {
  const auto& request = parser_->get();
  if (request.version() == 11 && request.count(http::field::host) != 1) {
    return Refuse(400, "the request must name its host once");
  }
  const bool head = request.method() == http::verb::head;
  const boost::beast::string_view method = request.method_string();
  const HttpRequest asked{.method = head ? std::string_view("GET") : std::string_view(method.data(), method.size()),
                          .path = PathOf(request.target())};
  Write(handler_(asked), request.keep_alive(), /*with_body=*/!head);
}

void HttpConnection::Refuse(int status, const char* why) {
  Write({.status = status, .body = std::string(why) + "\n"}, /*keep_alive=*/false, /*with_body=*/true);
}

void HttpConnection::Write(HttpResponse answer, bool keep_alive, bool with_body) {
  response_ = {};
  response_.version(11);
  response_.result(static_cast<unsigned>(answer.status));
  response_.set(http::field::content_type, answer.content_type);
  response_.set(http::field::cache_control, "no-store");
  response_.set("X-Content-Type-Options", "nosniff");
  if (!answer.allow.empty()) response_.set(http::field::allow, answer.allow);
  response_.content_length(answer.body.size());
  response_.keep_alive(keep_alive);
  if (with_body) response_.body() = std::move(answer.body);
  stream_.expires_after(options_.write_timeout);
  http::async_write(stream_, response_, [self = shared_from_this(), keep_alive](Error error, std::size_t) {
    self->response_ = {};
    if (error || self->closed_) return self->Close();
    if (!keep_alive) return self->Linger();
    self->owner_.OnAnswered(*self);
    self->WaitForRequest();
  });
}

void HttpConnection::Linger() {
  Error ignored;
  stream_.socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kLingerTime);
  Discard();
}

void HttpConnection::Discard() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](Error error, std::size_t) {
    if (error) return self->Close();
    self->Discard();
  });
}

void HttpConnection::Close() {
  if (std::exchange(closed_, true)) return;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  stream_.close();
  owner_.OnClosed(*this);
}

}  // namespace attend::server
