#include "server/http/http_server.h"

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <list>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/http/http_connection.h"
#include "server/http/http_connections.h"
#include "server/http/http_peer.h"
#include "server/rpc/call_credentials.h"
#include "server/rpc/listen_address.h"
#include "server/rpc/memory_shortage.h"

namespace attend::server {
namespace {

using boost::asio::ip::tcp;
using Error = boost::beast::error_code;

// How long to wait after the system could not give a connection, for lack of descriptors for example.
constexpr std::chrono::milliseconds kAcceptPause(50);

// How often answers that nobody takes are looked for.
constexpr std::chrono::milliseconds kLookInterval(1000);

struct Listener {
  explicit Listener(boost::asio::io_context& context) : acceptor(context), pause(context) {}

  tcp::acceptor acceptor;
  boost::asio::steady_timer pause;
};

class Server : public HttpServer, public HttpConnection::Owner {
 public:
  Server(const Options& options, HttpService& service)
      : options_(options), service_(service), shortage_(options.memory) {}
  ~Server() override { End(); }

  absl::Status Listen();
  void Run();

  const std::string& address() const override { return address_; }
  int port() const override { return port_; }
  std::int64_t connections() const override { return count_.load(std::memory_order_relaxed); }

  void Stop() override;

  void OnBusy(HttpConnection& connection) override;
  void OnAnswered(HttpConnection& connection) override;
  void OnClosed(HttpConnection& connection) override;

 protected:
  // Closes all and waits for the thread.
  void End();

 private:
  void CloseAll();
  void Count() { count_.store(static_cast<std::int64_t>(connections_.size()), std::memory_order_relaxed); }
  void Accept(Listener& listener);
  void OnAccepted(Listener& listener, const Error& error, tcp::socket socket);
  // Serves the connection, or closes it.
  void Take(tcp::socket socket);
  void Tick();
  // Now and then, ends answers whose memory others need.
  void LookForMemory();

  const Options options_;
  HttpService& service_;
  boost::asio::io_context context_{1};
  std::list<Listener> listeners_;
  boost::asio::steady_timer tick_{context_};
  boost::asio::steady_timer look_{context_};
  MemoryShortage shortage_;
  HttpConnections connections_{options_.max_connections};
  std::atomic<std::int64_t> count_{0};  // Of them, for other threads.
  std::string address_;
  int port_ = 0;
  bool stopped_ = false;
  std::thread thread_;
};

absl::Status Server::Listen() {
  absl::StatusOr<std::vector<ListenSocket>> sockets = ListenOn(options_.listen, options_.flag);
  if (!sockets.ok()) return sockets.status();
  port_ = sockets->front().port();
  for (ListenSocket& socket : *sockets) {
    absl::StrAppend(&address_, address_.empty() ? "" : ", ", socket.address());
    const tcp protocol = socket.address().front() == '[' ? tcp::v6() : tcp::v4();
    Error error;
    listeners_.emplace_back(context_).acceptor.assign(protocol, socket.fd(), error);
    if (error) return absl::InternalError(error.message());
    socket.Release();  // It is the acceptor's now.
  }
  return absl::OkStatus();
}

void Server::Run() {
  for (Listener& listener : listeners_) Accept(listener);
  if (options_.on_tick) Tick();
  if (options_.memory != nullptr) LookForMemory();
  thread_ = std::thread([this] { context_.run(); });
}

void Server::Tick() {
  tick_.expires_after(options_.tick_interval);
  tick_.async_wait([this](const Error& stopped) {
    if (stopped || stopped_) return;
    options_.on_tick();
    Tick();
  });
}

void Server::LookForMemory() {
  look_.expires_after(kLookInterval);
  look_.async_wait([this](const Error& stopped) {
    if (stopped || stopped_) return;
    if (shortage_.Look()) connections_.CloseStalled(options_.write_timeout / MemoryShortage::kImpatience);
    LookForMemory();
  });
}

void Server::Accept(Listener& listener) {
  listener.acceptor.async_accept(
      [this, &listener](const Error& error, tcp::socket socket) { OnAccepted(listener, error, std::move(socket)); });
}

void Server::OnAccepted(Listener& listener, const Error& error, tcp::socket socket) {
  if (stopped_) return;
  if (error) {
    listener.pause.expires_after(kAcceptPause);
    listener.pause.async_wait([this, &listener](const Error& stopped) {
      if (!stopped && !stopped_) Accept(listener);
    });
    return;
  }
  Take(std::move(socket));
  Accept(listener);
}

void Server::Take(tcp::socket socket) {
  std::optional<HttpPeer> peer = PeerOf(socket);
  if (!peer.has_value()) return;
  std::string site = options_.proxies.HasAddress(peer->host) ? "" : PeerAddress(peer->name);
  if (!connections_.MakeRoomFor(site)) return;
  Error ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  auto connection =
      std::make_shared<HttpConnection>(std::move(socket), std::move(peer->name), options_, service_, *this);
  connections_.Add(connection, std::move(site));
  Count();
  connection->Start();
}

void Server::OnBusy(HttpConnection& connection) { connections_.SetBusy(connection); }

void Server::OnAnswered(HttpConnection& connection) { connections_.SetWaiting(connection); }

void Server::OnClosed(HttpConnection& connection) {
  connections_.Remove(connection);
  Count();
}

void Server::CloseAll() {
  stopped_ = true;
  tick_.cancel();
  look_.cancel();
  for (Listener& listener : listeners_) {
    Error ignored;
    listener.acceptor.close(ignored);
    listener.pause.cancel();
  }
  connections_.CloseAll();
}

void Server::Stop() {
  boost::asio::post(context_, [this] { CloseAll(); });
}

void Server::End() {
  if (!thread_.joinable()) return;
  Stop();
  thread_.join();  // Nothing is left to wait for then.
}

// Serves what a Handler answers.
class HandlerServer final : public Server {
 public:
  HandlerServer(const Options& options, Handler handler) : Server(options, adapter_), adapter_(std::move(handler)) {}
  ~HandlerServer() override { End(); }  // While the adapter is there.

 private:
  class Adapter final : public HttpService {
   public:
    explicit Adapter(Handler handler) : handler_(std::move(handler)) {}
    Outcome OnHeader(HttpRequest request, const HttpReply& /*reply*/) override { return handler_(request); }

   private:
    const Handler handler_;
  };

  Adapter adapter_;
};

absl::StatusOr<std::unique_ptr<HttpServer>> StartServer(std::unique_ptr<Server> server) {
  if (absl::Status listening = server->Listen(); !listening.ok()) return listening;
  server->Run();
  return server;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options, Handler handler) {
  return StartServer(std::make_unique<HandlerServer>(options, std::move(handler)));
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options, HttpService& service) {
  return StartServer(std::make_unique<Server>(options, service));
}

}  // namespace attend::server
