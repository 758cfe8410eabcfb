// HttpServer as strangers meet it: raw bytes over sockets, whole requests and pieces, and what it does not put up with.
#include "server/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/http_socket.h"

namespace attend::server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(HttpServer, AnswersOneRequestAfterTheOtherOnOneConnection) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  for (int i = 0; i < 3; ++i) {
    socket.Send(Get("/metrics?query=" + std::to_string(i)));
    const std::string answer = socket.ReadUntil("GET /metrics;");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer, HasSubstr("Content-Length: 13\r\n"));
    EXPECT_THAT(answer, EndsWith("\r\n\r\nGET /metrics;"));
  }
  EXPECT_EQ(server->connections(), 1);
}

TEST(HttpServer, SendsEveryHeaderOfANameAndOneCacheControl) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  socket.Send(Get("/headers"));
  const std::string answer = socket.ReadUntil("\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("x-one: 1\r\nx-one: 2\r\n"));
  EXPECT_THAT(answer, HasSubstr("cache-control: no-cache\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("no-store")));
  socket.Send(Get("/"));
  EXPECT_THAT(socket.ReadUntil("GET /;"), HasSubstr("Cache-Control: no-store\r\n"));
}

TEST(HttpServer, AnswersRequestsThatComeTogetherInTheirOrder) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  socket.Send(Get("/1") + Get("/2") + "GET /3 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
  const std::string answers = socket.ReadToEnd();
  const std::size_t first = answers.find("GET /1;"), second = answers.find("GET /2;"), third = answers.find("GET /3;");
  ASSERT_NE(third, std::string::npos) << answers;
  EXPECT_LT(first, second);
  EXPECT_LT(second, third);
}

TEST(HttpServer, HeadHasTheLengthAndNotTheBody) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  socket.Send("HEAD /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
  const std::string answer = socket.ReadToEnd();
  EXPECT_THAT(answer, HasSubstr("Content-Length: 7\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n"));
}

TEST(HttpServer, ALargeAnswerArrivesWhole) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  socket.Send("GET /big HTTP/1.0\r\n\r\n");
  const std::string answer = socket.ReadToEnd();
  EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, std::size_t{1} << 20);
}

// What is refused, each with its status, and the connection's end.
struct Refusal {
  const char* name;
  std::string request;
  std::string status;
};

class HttpRefusals : public ::testing::TestWithParam<Refusal> {};

TEST_P(HttpRefusals, IsAnsweredAndEndsTheConnection) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  socket.Send(GetParam().request);
  const std::string answer = socket.ReadToEnd();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 " + GetParam().status));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  // The server goes on.
  const Socket next(server->port());
  next.Send(Get("/next"));
  EXPECT_THAT(next.ReadUntil("GET /next;"), HasSubstr("200 OK"));
}

// A request of so many bytes.
std::string GetOf(std::size_t bytes) {
  const std::string start = "GET / HTTP/1.1\r\nHost: test\r\nX: ", end = "\r\n\r\n";
  return start + std::string(bytes - start.size() - end.size(), 'x') + end;
}

std::string Repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

const std::string kZero(1, '\0');
const std::string kPost = "POST / HTTP/1.1\r\nHost: test\r\n";

INSTANTIATE_TEST_SUITE_P(
    All, HttpRefusals,
    ::testing::Values(
        Refusal{"NoHttp",
                "\x16\x03\x01\x02" + kZero + "\x01" + kZero + "\x01\xfc\x03\x03 a TLS client says hello\r\n\r\n",
                "400"},
        Refusal{"Http2Preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
        Refusal{"NoHost", "GET / HTTP/1.1\r\n\r\n", "400"},
        Refusal{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
        Refusal{"LongHeader", GetOf((8 << 10) + 1), "431"},
        Refusal{"ManyShortHeaders", "GET / HTTP/1.1\r\nHost: test\r\n" + Repeat("X: y\r\n", 2000) + "\r\n", "431"},
        Refusal{"TooManyEmptyHeaders", "GET / HTTP/1.1\r\nHost: test\r\n" + Repeat("a:\r\n", 100) + "\r\n", "431"},
        Refusal{"EndlessEmptyHeaders", "GET / HTTP/1.1\r\nHost: test\r\n" + Repeat("a:\r\n", 102), "431"},
        Refusal{"EndlessHeader", "GET / HTTP/1.1\r\nHost: test\r\nX: " + std::string(64 << 10, 'x'), "431"},
        Refusal{"LongTarget", "GET /" + std::string(9000, 'x') + " HTTP/1.1\r\nHost: test\r\n\r\n", "431"},
        Refusal{"Body", "GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx", "413"},
        Refusal{"HugeBody", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999\r\n\r\n", "413"},
        Refusal{"ChunkedBody", kPost + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "411"},
        Refusal{"OtherCoding", kPost + "Transfer-Encoding: gzip\r\n\r\nx", "501"},
        Refusal{"TwoCodings", kPost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
        Refusal{"TwoCodingHeaders", kPost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
                "400"},
        // Beast 1.74 ends the process at the first piece of this one's chunks.
        Refusal{"ChunksInPieces", kPost + "Transfer-Encoding: chunked\r\n\r\n0", "411"},
        Refusal{"LengthAndChunks", kPost + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "4"}),
    [](const auto& refusal) { return std::string(refusal.param.name); });

TEST(HttpServer, ARefusedBodyIsReadOnWhileItComesForABodysTime) {
  using Clock = std::chrono::steady_clock;
  HttpServer::Options options = SmallOptions();
  options.body_timeout = std::chrono::seconds(3);
  const auto server = Start(options);
  Clock::duration took{}, pause{};
  int tries = 0;
  // A second in which nothing comes ends it too: a machine that stands still for half of one tries again.
  do {
    const Socket socket(server->port());
    auto last = Clock::now();  // Before its time begins.
    const auto start = last, end = start + std::chrono::milliseconds(kPatienceMs);
    pause = {};
    socket.Send(kPost + "Content-Length: 99999999999999\r\n\r\n");
    EXPECT_THAT(socket.ReadUntil("too long\n"), StartsWith("HTTP/1.1 413"));
    while (server->connections() > 0 && Clock::now() < end) {
      socket.Send("more");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      pause = std::max(pause, Clock::now() - std::exchange(last, Clock::now()));
    }
    took = Clock::now() - start;
    EXPECT_EQ(server->connections(), 0);
  } while (took <= std::chrono::seconds(2) && pause > std::chrono::milliseconds(500) && ++tries < 10);
  EXPECT_GT(took, std::chrono::seconds(2));
}

TEST(HttpServer, ARequestOfTheFullLengthIsRead) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  socket.Send(GetOf(8 << 10));
  EXPECT_THAT(socket.ReadUntil("GET /;"), StartsWith("HTTP/1.1 200 OK"));
}

TEST(HttpServer, ARequestWithAHundredHeadersIsRead) {
  const auto server = Start(SmallOptions());
  const Socket socket(server->port());
  for (int i = 0; i < 2; ++i) {
    socket.Send("GET / HTTP/1.1\r\nHost: test\r\n" + Repeat("a:\r\n", 99) + "\r\n");
    EXPECT_THAT(socket.ReadUntil("GET /;"), StartsWith("HTTP/1.1 200 OK"));
  }
}

// Beast 1.74 throws at a value of 65,534 bytes, whatever the limit of the header.
TEST(HttpServer, ALargerLimitOfHeadersEndsWhereBeastsOwnIs) {
  HttpServer::Options options = SmallOptions();
  options.max_header_bytes = 1 << 20;
  const auto server = Start(options);
  const Socket socket(server->port());
  socket.Send(GetOf(64'000));
  EXPECT_THAT(socket.ReadUntil("GET /;"), StartsWith("HTTP/1.1 200 OK"));
  for (const std::size_t size : {64'001, 65'000, 65'533, 65'534, 65'535, 65'536, 70'000, 1 << 19}) {
    const Socket refused(server->port());
    refused.Send(GetOf(size));
    EXPECT_THAT(refused.ReadToEnd(), StartsWith("HTTP/1.1 431 ")) << size;
  }
  const Socket value(server->port());  // 65,534 bytes of the value alone.
  value.Send("GET / HTTP/1.1\r\nHost: test\r\nX: " + std::string(65'534, 'x') + "\r\n\r\n");
  EXPECT_THAT(value.ReadToEnd(), StartsWith("HTTP/1.1 431 "));
}

// A byte now and then does not prolong the time that a request may take.
TEST(HttpServer, ASlowHeaderEndsTheConnection) {
  HttpServer::Options options = SmallOptions();
  options.read_timeout = std::chrono::milliseconds(300);
  const auto server = Start(options);
  const Socket socket(server->port());
  std::thread sender([&socket] {
    for (const char c : "GET / HTTP/1.1\r\nX: " + std::string(40, 'x')) {
      socket.Send(std::string(1, c));
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  });
  EXPECT_EQ(socket.ReadToEnd(), "");
  sender.join();
}

TEST(HttpServer, AnIdleConnectionIsClosed) {
  HttpServer::Options options = SmallOptions();
  options.idle_timeout = std::chrono::milliseconds(200);
  const auto server = Start(options);
  const Socket silent(server->port());
  // On a machine that stands still for so long before the request is sent, a connection is closed without an answer.
  std::string answer;
  for (int tries = 0; tries < 20 && answer.empty(); ++tries) {
    const Socket answered(server->port());
    answered.Send(Get("/1"));
    answer = answered.ReadUntil("GET /1;");
    EXPECT_EQ(answered.ReadToEnd(), "");
  }
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_EQ(silent.ReadToEnd(), "");
}

TEST(HttpServer, AConnectionEndsAtItsAge) {
  HttpServer::Options options = SmallOptions();
  options.max_age = std::chrono::milliseconds(200);
  const auto server = Start(options);
  const Socket idle(server->port());
  EXPECT_EQ(idle.ReadToEnd(), "");
}

TEST(HttpServer, AnAnswerAfterTheAgeOfItsConnectionIsTheLast) {
  HttpServer::Options options = SmallOptions();
  options.max_age = std::chrono::milliseconds(200);
  const auto server = HttpServer::Start(options, [&options](const HttpRequest& request) {
    std::this_thread::sleep_for(2 * options.max_age);
    return Echo(request);
  });
  std::string answer;
  for (int i = 0; i < 20 && answer.empty(); ++i) {  // A connection may be too old before it asks.
    const Socket socket((*server)->port());
    socket.Send(Get("/late"));
    answer = socket.ReadToEnd();
  }
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, EndsWith("GET /late;"));
}

// A reader that never reads does not keep its connection.
TEST(HttpServer, AnAnswerThatNobodyReadsEndsTheConnection) {
  HttpServer::Options options = SmallOptions();
  options.write_timeout = std::chrono::milliseconds(200);
  const auto server = Start(options);
  const Socket socket(server->port());
  for (int i = 0; i < 64; ++i) socket.Send(Get("/big"));
  ASSERT_THAT(socket.ReadUntil("x"), StartsWith("HTTP/1.1 200 OK")) << "it has not begun";
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (server->connections() != 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(server->connections(), 0);
}

// Its bytes would give it days; while others need its memory, its size counts for nothing.
TEST(HttpServer, AnAnswerThatNobodyReadsEndsSoonWhenMemoryIsShort) {
  MemoryBudget memory(1);
  HttpServer::Options options = SmallOptions();
  options.write_timeout = std::chrono::milliseconds(600);
  options.min_bytes_per_second = 1;
  options.memory = &memory;
  const auto server = Start(options);
  const Socket unread(server->port()), idle(server->port());
  ASSERT_TRUE(IsServed(idle));
  for (int i = 0; i < 64; ++i) unread.Send(Get("/big"));
  ASSERT_THAT(unread.ReadUntil("x"), StartsWith("HTTP/1.1 200 OK")) << "it has not begun";
  std::this_thread::sleep_for(options.write_timeout * 3);
  EXPECT_EQ(server->connections(), 2) << "nobody needs its memory";
  const auto held = memory.Reserve(1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (server->connections() == 2 && std::chrono::steady_clock::now() < end) {
    ASSERT_FALSE(memory.Reserve(1).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(server->connections(), 1);
  EXPECT_TRUE(IsServed(idle)) << "one that has no answer to read stays";
}

// Whoever opens connections and waits cannot keep a probe out: the oldest of them goes.
// What such a peer sent could still be read, and nobody could say whose it is.
TEST(HttpServer, NothingIsReadOfAPeerThatHasGone) {
  std::promise<void> waits, reset;
  std::vector<std::string> peers;
  auto server = *HttpServer::Start(SmallOptions(), [&](const HttpRequest& request) {
    if (request.path == "/wait") {
      waits.set_value();
      reset.get_future().wait();
    }
    peers.push_back(request.peer);
    return Echo(request);
  });
  const Socket waiting(server->port());
  waiting.Send(Get("/wait"));
  waits.get_future().wait();  // From here on nothing is accepted.
  for (int i = 0; i < 3; ++i) {
    Socket gone(server->port());
    gone.Send(Get("/gone"));
    gone.Reset();
  }
  reset.set_value();
  EXPECT_THAT(waiting.ReadUntil("GET /wait;"), HasSubstr("200 OK"));
  EXPECT_TRUE(IsServed(Socket(server->port())));
  server.reset();
  EXPECT_EQ(peers.size(), 2U);
  for (const std::string& peer : peers) EXPECT_THAT(peer, StartsWith("ipv4:127.0.0.1:"));
}

// Has calls that have `time` and, when it is up, answer so; one call for each object.
class Dated final : public HttpService {
 public:
  explicit Dated(std::chrono::milliseconds time) : time_(time) {}

  Outcome OnHeader(HttpRequest request, const HttpReply& reply) override {
    if (request.path == "/served") return Echo(request);
    return std::make_shared<Call>(*this, reply);
  }

  // Of the call, once it has begun.
  HttpReply Reply() { return begun_.get_future().get(); }

  std::atomic<int> deadlines{0};

 private:
  class Call final : public HttpCall {
   public:
    Call(Dated& service, const HttpReply& reply) : service_(service), reply_(reply) {}
    std::optional<HttpResponse> OnBodyGrows(std::size_t /*bytes*/) override { return std::nullopt; }
    void OnBody(grpc::ByteBuffer& /*body*/) override {
      end_ = std::chrono::system_clock::now() + service_.time_;
      service_.begun_.set_value(reply_);
    }
    std::optional<std::chrono::system_clock::time_point> watched_deadline() const override { return end_; }
    void OnDeadline() override {
      service_.deadlines.fetch_add(1);
      reply_.Send({.body = "late;"});
    }
    void OnGone() override {}
    HttpResponse OnUnreadableBody(BodyFault /*fault*/) override { return {.status = 400}; }
    std::size_t max_body_bytes() const override { return 0; }

   private:
    Dated& service_;
    const HttpReply reply_;
    std::chrono::system_clock::time_point end_;
  };

  const std::chrono::milliseconds time_;
  std::promise<HttpReply> begun_;
};

TEST(HttpServer, ACallHearsOnceThatItsTimeIsUp) {
  Dated service(std::chrono::milliseconds(20));
  const auto server = *HttpServer::Start(SmallOptions(), service);
  const Socket socket(server->port());
  socket.Send(Get("/call"));
  EXPECT_THAT(socket.ReadUntil("late;"), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_TRUE(IsServed(socket));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(IsServed(socket));
  EXPECT_EQ(service.deadlines.load(), 1);
}

TEST(HttpServer, AnAnsweredCallHearsNothingOfItsTime) {
  constexpr std::chrono::milliseconds kTime(300);
  bool in_time = false;
  for (int tries = 0; tries < 20 && !in_time; ++tries) {  // A machine may stand still meanwhile.
    Dated service(kTime);
    const auto server = *HttpServer::Start(SmallOptions(), service);
    const Socket socket(server->port());
    const auto start = std::chrono::steady_clock::now();
    socket.Send(Get("/call"));
    service.Reply().Send({.body = "soon;"});
    const std::string answer = socket.ReadUntil(";");
    in_time = std::chrono::steady_clock::now() - start < kTime / 2;
    if (!in_time) continue;
    EXPECT_THAT(answer, EndsWith("\r\n\r\nsoon;"));
    std::this_thread::sleep_for(kTime);
    EXPECT_EQ(service.deadlines.load(), 0);
    EXPECT_TRUE(IsServed(socket));
  }
  EXPECT_TRUE(in_time);
}

TEST(HttpServer, TicksAndEndsWithConnectionsOpen) {
  HttpServer::Options options = SmallOptions();
  std::atomic<int> ticks{0};
  options.on_tick = [&ticks] { ticks.fetch_add(1); };
  options.tick_interval = std::chrono::milliseconds(1);
  auto server = Start(options);
  const Socket idle(server->port()), half(server->port());
  half.Send("GET / HT");
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (ticks.load() < 3 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_GE(ticks.load(), 3);
  const int port = server->port();
  server.reset();
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_FALSE(Socket(port).connected());
}

TEST(HttpServer, AWildcardTakesAllAddressesAndATakenPortIsNamed) {
  HttpServer::Options options = SmallOptions();
  options.listen = "0.0.0.0:0";
  const auto server = Start(options);
  const Socket socket(server->port(), "127.0.0.2");
  socket.Send(Get("/"));
  EXPECT_THAT(socket.ReadUntil("GET /;"), HasSubstr("200 OK"));
  options.listen = "127.0.0.1:" + std::to_string(server->port());
  const auto second = HttpServer::Start(options, Echo);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(options.listen + " (--test-listen): another process"));
}

}  // namespace
}  // namespace attend::server
