// Fuzzes a connection of the HTTP server, with bodies of a length and in chunks: whatever bytes a peer sends, in
// pieces, it gets answers that begin with a status line, or none, no body is longer than it may be, and the connection
// ends. `make fuzz` runs it for long; `ctest -R http_fuzz_replay` runs the corpus. The first byte chooses the size of
// the pieces; the rest is what the peer sends before it half-closes.

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/http/http_connection.h"

namespace {

using attend::server::HttpCall;
using attend::server::HttpConnection;
using attend::server::HttpReply;
using attend::server::HttpRequest;
using attend::server::HttpResponse;
using attend::server::HttpServer;
using attend::server::HttpService;

constexpr std::size_t kMaxBody = 64;

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "http_fuzz: %s\n", what);
  std::abort();
}

class Owner final : public HttpConnection::Owner {
 public:
  void OnAnswered(HttpConnection&) override { ++answered; }
  void OnClosed(HttpConnection&) override { ++closed; }
  int answered = 0;
  int closed = 0;
};

// Answers as soon as the body is there.
class Call final : public HttpCall {
 public:
  explicit Call(HttpReply reply) : reply_(std::move(reply)) {}

  std::optional<HttpResponse> OnBodyGrows(std::size_t bytes) override {
    Require(bytes > held_ && !ended_, "a body that grows by nothing, or after its end");
    held_ = bytes;
    if (bytes > 3 * 4096) return End(HttpResponse{.status = 503});
    return std::nullopt;
  }
  void OnBody(grpc::ByteBuffer& body) override {
    Require(body.Length() <= kMaxBody && body.Length() <= held_, "a body that is too long");
    reply_.Send(End(HttpResponse{.body = "ok"}));
  }
  std::optional<std::chrono::system_clock::time_point> watched_deadline() const override { return std::nullopt; }
  void OnDeadline() override { Require(false, "there is no deadline"); }
  void OnGone() override {}
  HttpResponse OnUnreadableBody(attend::server::BodyFault /*fault*/) override { return End({.status = 400}); }
  std::size_t max_body_bytes() const override { return kMaxBody; }

 private:
  HttpResponse End(HttpResponse answer) {
    Require(!std::exchange(ended_, true), "two ends");
    return answer;
  }

  const HttpReply reply_;
  std::size_t held_ = 0;
  bool ended_ = false;
};

class Service final : public HttpService {
 public:
  explicit Service(bool bodies) : bodies_(bodies) {}
  Outcome OnHeader(HttpRequest request, const HttpReply& reply) override {
    ++handled;
    Require(!request.method.empty() && request.path.find('?') == std::string::npos, "a strange request");
    if (!bodies_ || request.method == "GET") return HttpResponse{.body = "ok"};
    return std::make_shared<Call>(reply);
  }
  int handled = 0;

 private:
  const bool bodies_;
};

std::string ReadAll(int fd) {
  std::string all;
  char bytes[4096];
  for (ssize_t size = 0; (size = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0;) {
    all.append(bytes, static_cast<std::size_t>(size));
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2 || size > (64 << 10)) return 0;
  int ends[2];
  Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no socket pair");
  const std::size_t piece = data[0] == 0 ? size : data[0];
  HttpServer::Options options;
  options.max_header_bytes = 256;
  options.bodies = data[0] % 2 == 1;
  Service service(options.bodies);
  Owner owner;
  boost::asio::io_context context(1);
  boost::asio::ip::tcp::socket socket(context);
  socket.assign(boost::asio::ip::tcp::v4(), ends[0]);
  std::make_shared<HttpConnection>(std::move(socket), "ipv4:127.0.0.1:1", options, service, owner)->Start();
  std::string answers;
  for (std::size_t at = 1; at < size; at += piece) {
    (void)send(ends[1], data + at, std::min(piece, size - at), MSG_NOSIGNAL | MSG_DONTWAIT);
    context.poll();
    answers += ReadAll(ends[1]);
  }
  shutdown(ends[1], SHUT_WR);
  while (!context.stopped()) {  // A peer that does not read would be waited for.
    context.run_one_for(std::chrono::milliseconds(1));
    answers += ReadAll(ends[1]);
  }
  close(ends[1]);
  Require(owner.closed == 1, "the connection did not end");
  Require(owner.answered <= service.handled, "an answer to nothing");
  Require(answers.empty() || answers.rfind("HTTP/1.1 ", 0) == 0, "an answer without a status line");
  return 0;
}
