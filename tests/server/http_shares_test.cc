// Which connection goes when all that HttpServer may have are taken, and whose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/http/http_server.h"
#include "tests/support/http_socket.h"

namespace attend::server {
namespace {

using ::testing::HasSubstr;

TEST(HttpServer, ANewConnectionIsServedWhenAllAreTaken) {
  HttpServer::Options options = SmallOptions();
  options.max_connections = 8;
  const auto server = Start(options);
  std::vector<Socket> idle;
  for (int i = 0; i < 8; ++i) {
    idle.emplace_back(server->port());
    idle.back().Send(Get("/" + std::to_string(i)));
    EXPECT_THAT(idle.back().ReadUntil("GET /" + std::to_string(i) + ";"), HasSubstr("200 OK"));
  }
  // The first has just been answered again, so that the second has waited longest.
  idle[0].Send(Get("/again"));
  EXPECT_THAT(idle[0].ReadUntil("GET /again;"), HasSubstr("200 OK"));
  const Socket probe(server->port());
  probe.Send(Get("/probe"));
  EXPECT_THAT(probe.ReadUntil("GET /probe;"), HasSubstr("200 OK"));
  EXPECT_EQ(idle[1].ReadToEnd(), "");
  idle[0].Send(Get("/still"));
  EXPECT_THAT(idle[0].ReadUntil("GET /still;"), HasSubstr("200 OK"));
  EXPECT_EQ(server->connections(), 8);
}

class HttpShares : public ::testing::Test {
 protected:
  static constexpr char kMany[] = "127.0.0.2", kFew[] = "127.0.0.3";

  static HttpServer::Options EightConnections() {
    HttpServer::Options options = SmallOptions();
    options.listen = "127.0.0.1:0";
    options.max_connections = 8;
    return options;
  }
  // All that there may be, of one address.
  static std::vector<Socket> TakeAll(const HttpServer& server) {
    std::vector<Socket> all;
    for (int i = 0; i < 8; ++i) {
      all.emplace_back(server.port(), "127.0.0.1", kMany);
      EXPECT_TRUE(IsServed(all.back()));
    }
    return all;
  }
};

TEST_F(HttpShares, AnAddressBelowAQuarterTakesFromTheOneThatHasMost) {
  const auto server = Start(EightConnections());
  const std::vector<Socket> many = TakeAll(*server);
  const Socket first(server->port(), "127.0.0.1", kFew), second(server->port(), "127.0.0.1", kFew);
  EXPECT_TRUE(IsServed(first));
  EXPECT_TRUE(IsServed(second));
  // The newest went. Now the other address has its quarter, and takes from itself.
  EXPECT_EQ(many[7].ReadToEnd(), "");
  EXPECT_EQ(many[6].ReadToEnd(), "");
  const Socket third(server->port(), "127.0.0.1", kFew);
  EXPECT_TRUE(IsServed(third));
  EXPECT_EQ(first.ReadToEnd(), "");
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(IsServed(many[static_cast<std::size_t>(i)])) << i;
}

TEST_F(HttpShares, AnAddressOfTrustedProxiesHasNone) {
  HttpServer::Options options = EightConnections();
  options.proxies = *TrustedProxies::Parse({kMany});
  const auto server = Start(options);
  const std::vector<Socket> many = TakeAll(*server);
  const Socket other(server->port(), "127.0.0.1", kFew);
  EXPECT_TRUE(IsServed(other));
  EXPECT_EQ(many[0].ReadToEnd(), "") << "the one that waited longest";
  EXPECT_TRUE(IsServed(many[7]));
}

// Begins calls that are never answered.
class Endless final : public HttpService {
 public:
  class Call final : public HttpCall {
   public:
    explicit Call(Endless& service) : service_(service) {}
    std::optional<HttpResponse> OnBodyGrows(std::size_t /*bytes*/) override { return std::nullopt; }
    void OnBody(grpc::ByteBuffer& /*body*/) override { service_.begun.fetch_add(1); }
    std::optional<std::chrono::system_clock::time_point> watched_deadline() const override { return std::nullopt; }
    void OnDeadline() override {}
    void OnGone() override { service_.gone.fetch_add(1); }
    HttpResponse OnUnreadableBody(BodyFault /*fault*/) override { return {.status = 400}; }
    std::size_t max_body_bytes() const override { return 0; }

   private:
    Endless& service_;
  };

  Outcome OnHeader(HttpRequest request, const HttpReply& /*reply*/) override {
    if (request.path == "/served") return Echo(request);
    return std::make_shared<Call>(*this);
  }

  std::atomic<int> begun{0}, gone{0};
};

TEST_F(HttpShares, CallsGiveWayWhenNothingElseDoes) {
  Endless service;
  const auto server = *HttpServer::Start(EightConnections(), service);
  std::vector<Socket> many = TakeAll(*server);
  for (const Socket& socket : many) socket.Send(Get("/call"));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (service.begun.load() < 8 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  const Socket refused(server->port(), "127.0.0.1", kMany);
  EXPECT_EQ(refused.ReadToEnd(), "");
  EXPECT_EQ(service.gone.load(), 0);
  const Socket other(server->port(), "127.0.0.1", kFew);
  EXPECT_TRUE(IsServed(other));
  EXPECT_EQ(many[7].ReadToEnd(), "");
  EXPECT_EQ(service.gone.load(), 1);
}

}  // namespace
}  // namespace attend::server
