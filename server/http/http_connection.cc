#include "server/http/http_connection.h"

#include <algorithm>
#include <string>
#include <utility>

namespace attend::server {
namespace {

namespace http = boost::beast::http;

// The first read asks for no more, so that an idle connection is small.
constexpr std::size_t kFirstReadBytes = 512;

// How long, and for how many bytes, a refused request is read on before the connection is closed.
constexpr std::chrono::seconds kLingerTime(1);
constexpr std::size_t kLingerBytes = 4096;

std::string_view PathOf(boost::beast::string_view target) {
  const std::string_view text(target.data(), target.size());
  return text.substr(0, text.find('?'));
}

}  // namespace

void HttpConnection::WaitForRequest() {
  if (buffer_.size() > 0) return ReadRequest();  // Sent together with the last one.
  buffer_.shrink_to_fit();
  stream_.expires_after(options_.idle_timeout);
  stream_.async_read_some(buffer_.prepare(std::min(kFirstReadBytes, options_.max_header_bytes)),
                          [self = shared_from_this()](Error error, std::size_t size) {
                            if (error) return self->Close();
                            self->buffer_.commit(size);
                            self->ReadRequest();
                          });
}

void HttpConnection::ReadRequest() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(options_.max_header_bytes));
  parser_->body_limit(options_.max_body_bytes);
  stream_.expires_after(options_.read_timeout);
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](Error error, std::size_t) { self->OnRequest(error); });
}

void HttpConnection::OnRequest(const Error& error) {
  if (!error) return Answer();
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return Refuse(431, "the request's header is too long");
  }
  if (error == http::error::body_limit) return Refuse(413, "the request's body is too long");
  // The peer has gone or took too long, or what it sent is no HTTP.
  const bool malformed = error.category() == http::make_error_code(http::error::bad_method).category() &&
                         error != http::error::end_of_stream && error != http::error::partial_message;
  if (!malformed) return Close();
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
  parser_.reset();
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
  stream_.async_read_some(buffer_.prepare(std::min(kLingerBytes, options_.max_header_bytes)),
                          [self = shared_from_this()](Error error, std::size_t) {
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
