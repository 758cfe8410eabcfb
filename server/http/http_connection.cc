#include "server/http/http_connection.h"

#include <algorithm>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/write.hpp>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;

// A stranger's header is held until it is complete: each of its lines takes Beast some 150 bytes, however short it is.
constexpr std::size_t kMostHeaderLines = 102;  // The first and the last are none of them.

// Beast 1.74 throws when a header's value has 65,534 bytes.
constexpr std::size_t kMostHeaderBytes = 64'000;

constexpr std::size_t kReadBytes = 4096;
constexpr std::size_t kMostReadBytes = 64 << 10;  // Of a body that comes fast.
constexpr std::size_t kWatchBytes = 512;

// How long nothing more may come of a refused request before the connection is closed.
constexpr std::chrono::seconds kLingerTime(1);

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

std::string_view PathOf(boost::beast::string_view target) {
  const std::string_view text = View(target);
  return text.substr(0, text.find('?'));
}

std::size_t MostHeaderBytes(const HttpServer::Options& options) {
  return std::min(options.max_header_bytes, kMostHeaderBytes);
}

std::size_t CountLines(boost::asio::const_buffer bytes, std::size_t size) {
  const char* const text = static_cast<const char*>(bytes.data());
  return static_cast<std::size_t>(std::count(text, text + size, '\n'));
}

HttpResponse Plain(int status, const char* why) { return {.status = status, .body = absl::StrCat(why, "\n")}; }

}  // namespace

void HttpReply::Send(HttpResponse answer) const {
  if (const std::shared_ptr<HttpConnection> connection = connection_.lock()) {
    connection->Send(request_, std::move(answer));
  }
}

HttpConnection::HttpConnection(tcp::socket socket, std::string peer, const HttpServer::Options& options,
                               HttpService& service, Owner& owner)
    : options_(options),
      service_(service),
      owner_(owner),
      end_of_age_(std::chrono::steady_clock::now() + options.max_age),
      stream_(std::move(socket), options.tls == nullptr ? nullptr : options.tls->current()),
      peer_(std::move(peer)) {}

void HttpConnection::Start() {
  if (!stream_.encrypted()) return WaitForRequest();
  stream_.tcp().expires_after(options_.handshake_timeout);
  stream_.Handshake([self = shared_from_this()](Error error) {
    if (error || self->closed_) return self->Close();
    if (!self->options_.tls->Admits(self->stream_.native_tls())) return self->Close();
    if (self->options_.tls->mutual()) self->certificate_ = PeerCertificateNames(self->stream_.native_tls());
    self->WaitForRequest();
  });
}

void HttpConnection::Read(std::size_t size, void (HttpConnection::*next)()) {
  stream_.async_read_some(buffer_.prepare(size), [self = shared_from_this(), next](Error error, std::size_t read) {
    const bool is_late = self->late_ && error == boost::asio::error::operation_aborted;
    if (self->closed_ || (error && !is_late)) return self->Close();
    self->buffer_.commit(read);
    (self.get()->*next)();
  });
}

void HttpConnection::WaitForRequest() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(MostHeaderBytes(options_)));
  // The parser reads no body. Beast 1.74 takes "no limit" for one that every length exceeds.
  parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
  parser_->eager(false);  // Stops where the header ends.
  header_bytes_ = header_lines_ = 0;
  if (buffer_.size() > 0) return StartRequest();  // Sent together with the last one.
  buffer_.shrink_to_fit();
  stream_.tcp().expires_after(std::clamp(TimeLeft(), HttpServer::Duration::zero(), options_.idle_timeout));
  Read(options_.first_read_bytes, &HttpConnection::StartRequest);
}

void HttpConnection::StartRequest() {
  stream_.tcp().expires_after(options_.read_timeout);
  ParseHeader();
}

void HttpConnection::ParseHeader() {
  while (!parser_->is_header_done()) {
    if (buffer_.size() == 0) return Read(kReadBytes, &HttpConnection::ParseHeader);
    const Error error = ParseRead();
    if (error == http::error::need_more) return Read(kReadBytes, &HttpConnection::ParseHeader);
    if (error) return RefuseToRead(error);
  }
  OnHeader();
}

// Beast bounds each line and not all of them together, so it is given no more than all of them may have.
HttpConnection::Error HttpConnection::ParseRead() {
  Error error;
  const std::size_t most = MostHeaderBytes(options_);
  const std::size_t used = parser_->put(boost::asio::buffer(buffer_.data(), most - header_bytes_), error);
  header_lines_ += CountLines(buffer_.data(), used);
  buffer_.consume(used);
  header_bytes_ += used;
  const bool incomplete = error == http::error::need_more;
  if (incomplete && buffer_.size() >= most - header_bytes_) error = http::error::header_limit;
  if (header_lines_ > kMostHeaderLines) error = http::error::header_limit;
  return error;
}

void HttpConnection::RefuseToRead(const Error& error) {
  if (error == http::error::header_limit) return Refuse(Plain(431, "the request's header is too long"));
  Refuse(Plain(400, "the request is not HTTP/1.1"));
}

std::optional<HttpResponse> HttpConnection::CheckHeader() const {
  const auto& message = parser_->get();
  if (message.version() == 11 && message.count(http::field::host) != 1) {
    return Plain(400, "the request must name its host once");
  }
  // Of another coding it would not be known where the body ends.
  const auto coding = message.find(http::field::transfer_encoding);
  if (coding != message.end() && !boost::beast::iequals(coding->value(), "chunked")) {
    return Plain(501, "the only transfer coding is chunked");
  }
  if (options_.bodies) return std::nullopt;
  if (parser_->chunked()) return Plain(411, "a body must come with its length");
  if (parser_->content_length().value_or(0) > 0) return Plain(413, "the request's body is too long");
  return std::nullopt;
}

void HttpConnection::OnHeader() {
  if (auto refused = CheckHeader()) return Refuse(*std::move(refused));
  ++request_;
  auto outcome = service_.OnHeader(MakeRequest(), HttpReply(weak_from_this(), request_));
  if (auto* answer = std::get_if<HttpResponse>(&outcome)) return AnswerWithoutBody(std::move(*answer));
  call_ = std::get<std::shared_ptr<HttpCall>>(std::move(outcome));
  StartBody();
}

HttpRequest HttpConnection::MakeRequest() {
  const auto& message = parser_->get();
  head_ = message.method() == http::verb::head;
  keep_alive_ = message.keep_alive();
  length_.reset();
  if (!parser_->chunked()) length_ = parser_->content_length().value_or(0);
  expects_continue_ = http::token_list(message[http::field::expect]).exists("100-continue");
  HttpRequest request{.method = head_ ? "GET" : std::string(View(message.method_string())),
                      .path = std::string(PathOf(message.target())),
                      .headers = {},
                      .peer = peer_,
                      .certificate = certificate_,
                      .encrypted = stream_.encrypted()};
  for (const auto& field : message) {
    const std::string_view name = View(field.name_string());
    request.headers.emplace_back(absl::AsciiStrToLower(absl::string_view(name.data(), name.size())),
                                 std::string(View(field.value())));
  }
  parser_.reset();
  return request;
}

void HttpConnection::AnswerWithoutBody(HttpResponse answer) {
  const bool is_here = length_.has_value() && *length_ <= buffer_.size();
  if (is_here) buffer_.consume(static_cast<std::size_t>(*length_));
  Write(std::move(answer), keep_alive_ && is_here);
}

void HttpConnection::StartBody() {
  body_.emplace(length_, call_->max_body_bytes(), options_.max_header_bytes);
  read_bytes_ = kReadBytes;
  late_ = false;
  stream_.tcp().expires_after(options_.body_timeout);
  if (expects_continue_) return Continue();
  ReadBody();
}

void HttpConnection::Continue() {
  boost::asio::async_write(stream_, boost::asio::buffer(kContinue.data(), kContinue.size()),
                           [self = shared_from_this()](Error error, std::size_t) {
                             if (error || self->closed_) return self->Close();
                             self->ReadBody();
                           });
}

// By a timer of its own: the stream's closes the connection, and the body's caller would get no answer.
void HttpConnection::WatchBody() {
  stream_.tcp().expires_never();
  deadline_.emplace(stream_.get_executor());
  deadline_->expires_after(options_.body_timeout);
  deadline_->async_wait([self = shared_from_this(), request = request_](Error error) {
    if (error || self->closed_ || !self->body_.has_value() || self->request_ != request) return;
    self->late_ = true;
    self->stream_.tcp().cancel();  // The read under way, which goes on to ReadBody.
  });
}

void HttpConnection::ReadBody() {
  for (;;) {
    const auto read = buffer_.data();
    std::string_view bytes(static_cast<const char*>(read.data()), read.size());
    const HttpBodyReader::Result result = body_->Take(bytes);
    buffer_.consume(read.size() - bytes.size());
    switch (result) {
      case HttpBodyReader::Result::kMore:
        if (late_) return EndUnread(call_->OnUnreadableBody(BodyFault::kLate));
        if (!deadline_.has_value()) WatchBody();
        if (read.size() >= read_bytes_) read_bytes_ = std::min(2 * read_bytes_, kMostReadBytes);
        return Read(read_bytes_, &HttpConnection::ReadBody);
      case HttpBodyReader::Result::kDone: return OnBody();
      case HttpBodyReader::Result::kTooLong: return EndUnread(call_->OnUnreadableBody(BodyFault::kTooLong));
      case HttpBodyReader::Result::kMalformed: return EndUnread(call_->OnUnreadableBody(BodyFault::kMalformed));
      case HttpBodyReader::Result::kGrow:
        if (auto refused = call_->OnBodyGrows(body_->bytes_after_growth())) return EndUnread(*std::move(refused));
        body_->Grow();
    }
  }
}

void HttpConnection::EndUnread(HttpResponse answer) {
  body_.reset();
  deadline_.reset();
  buffer_.clear();  // Nothing counts it, and a peer may take its time from here on.
  buffer_.shrink_to_fit();
  answered_ = true;
  Write(std::move(answer), /*keep_alive=*/false);
}

void HttpConnection::OnBody() {
  grpc::ByteBuffer body = body_->TakeBody();
  body_.reset();
  deadline_.reset();
  late_ = false;            // It was there in the same moment.
  buffer_.shrink_to_fit();  // Nothing counts it, and the answer may take its time.
  const std::shared_ptr<HttpCall> call = call_;
  const std::uint64_t request = request_;
  call->OnBody(body);
  if (closed_ || answered_ || request != request_) return;
  owner_.OnBusy(*this);
  WatchDeadline();
  WatchPeer();
}

void HttpConnection::WatchDeadline() {
  const auto at = call_->watched_deadline();
  if (!at.has_value()) return;
  deadline_.emplace(stream_.get_executor());
  deadline_->expires_after(
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(*at - std::chrono::system_clock::now()));
  deadline_->async_wait([self = shared_from_this(), request = request_](Error error) {
    if (error || self->closed_ || self->answered_ || self->request_ != request) return;
    const std::shared_ptr<HttpCall> call = self->call_;
    call->OnDeadline();
  });
}

void HttpConnection::WatchPeer() {
  if (buffer_.size() > 0) return;  // The next request is here: the peer was there to send it.
  watching_ = true;
  stream_.tcp().expires_never();
  stream_.async_read_some(buffer_.prepare(kWatchBytes), [self = shared_from_this()](Error error, std::size_t read) {
    self->watching_ = false;
    const bool waiting = std::exchange(self->waiting_, false);
    if (self->closed_) return;
    if (error && !(waiting && error == boost::asio::error::operation_aborted)) return self->Close();
    self->buffer_.commit(read);
    if (waiting) self->WaitForRequest();
  });
}

void HttpConnection::Send(std::uint64_t request, HttpResponse answer) {
  boost::asio::dispatch(stream_.get_executor(),
                        [self = shared_from_this(), request, answer = std::move(answer)]() mutable {
                          if (self->closed_ || self->answered_ || self->call_ == nullptr) return;
                          if (self->request_ == request) self->OnAnswer(std::move(answer));
                        });
}

void HttpConnection::OnAnswer(HttpResponse answer) {
  answered_ = true;
  deadline_.reset();
  Write(std::move(answer), keep_alive_);
}

void HttpConnection::Refuse(HttpResponse answer) {
  parser_.reset();
  Write(std::move(answer), /*keep_alive=*/false);
}

void HttpConnection::Write(HttpResponse answer, bool keep_alive) {
  keep_alive = keep_alive && !answer.close && TimeLeft() > HttpServer::Duration::zero();
  const std::size_t size = answer.body.size();
  response_ = {};
  response_.version(11);
  response_.result(static_cast<unsigned>(answer.status));
  if (!answer.content_type.empty()) response_.set(http::field::content_type, answer.content_type);
  response_.set("X-Content-Type-Options", "nosniff");
  if (!answer.allow.empty()) response_.set(http::field::allow, answer.allow);
  for (const auto& [name, value] : answer.headers) response_.insert(name, value);
  if (response_.count(http::field::cache_control) == 0) response_.set(http::field::cache_control, "no-store");
  if (answer.status != 204 && answer.status != 304) response_.content_length(size);
  response_.keep_alive(keep_alive);
  if (!head_) response_.body() = std::move(answer.body);
  writing_since_ = std::chrono::steady_clock::now();
  stream_.tcp().expires_after(options_.write_timeout + std::chrono::seconds(size / options_.min_bytes_per_second));
  http::async_write(stream_, response_, [self = shared_from_this(), keep_alive](Error error, std::size_t) {
    self->response_ = {};
    if (error || self->closed_) return self->Close();
    self->OnWritten(keep_alive);
  });
}

void HttpConnection::OnWritten(bool keep_alive) {
  head_ = answered_ = false;
  writing_since_ = std::chrono::steady_clock::time_point::max();
  call_.reset();
  if (!keep_alive) return watching_ ? Close() : Linger();
  owner_.OnAnswered(*this);
  if (!watching_) return WaitForRequest();
  waiting_ = true;
  stream_.tcp().cancel();
}

void HttpConnection::Linger() {
  Error ignored;
  stream_.tcp().socket().shutdown(tcp::socket::shutdown_send, ignored);
  end_of_linger_ = std::chrono::steady_clock::now() + options_.body_timeout;
  Discard();
}

// What still comes is read past TLS: nobody looks at it.
void HttpConnection::Discard() {
  const HttpServer::Duration left = end_of_linger_ - std::chrono::steady_clock::now();
  if (left <= HttpServer::Duration::zero()) return Close();
  buffer_.clear();
  stream_.tcp().expires_after(std::min<HttpServer::Duration>(kLingerTime, left));
  stream_.tcp().async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](Error error, std::size_t) {
    if (error || self->closed_) return self->Close();
    self->Discard();
  });
}

void HttpConnection::Close() {
  if (std::exchange(closed_, true)) return;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  deadline_.reset();
  stream_.tcp().close();
  if (const std::shared_ptr<HttpCall> call = std::exchange(call_, nullptr)) call->OnGone();
  owner_.OnClosed(*this);
}

}  // namespace attend::server
