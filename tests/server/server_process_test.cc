// The built binary as an operator meets it: start, ports, exit codes, log and signals.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "attend/v1/attention_service.pb.h"
#include "tests/server/engine_fixture.h"
#include "tests/support/http_get.h"
#include "tests/support/raw_call.h"
#include "tests/support/server_process.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

// A file that is gone at the end of the test.
class TemporaryText {
 public:
  explicit TemporaryText(const std::string& text) {
    char path[] = "/tmp/attend-process-test-XXXXXX";
    close(mkstemp(path));
    path_ = path;
    std::ofstream(path_) << text;
  }
  ~TemporaryText() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

constexpr char kInfo[] = "/attend.v1.AttentionService/GetServerInfo";
constexpr char kSdpa[] = "/attend.v1.AttentionService/ScaledDotProductAttention";

attend::v1::GetServerInfoResponse Info(const ServerProcess& server) {
  const RawAnswer answer = CallRaw(MakeTestChannel(server.address()), kInfo, "");
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  attend::v1::GetServerInfoResponse info;
  EXPECT_TRUE(info.ParseFromString(answer.response));
  return info;
}

// How soon it is ready, lifecycle_test.py asks.
TEST(ServerProcessTest, StartsAnswersAndEndsOnSigterm) {
  ServerProcess server;
  EXPECT_NE(Info(server).version(), "");
  EXPECT_EQ(server.Terminate(), 0) << server.standard_error();
}

// Attention of `tokens` tokens over themselves, one number each.
std::string SdpaRequest(int tokens) {
  attend::v1::ScaledDotProductAttentionRequest request;
  for (auto* tensor : {request.mutable_query(), request.mutable_key(), request.mutable_value()}) {
    for (const int axis : {tokens, 1}) tensor->add_shape(axis);
    tensor->set_data(std::string(sizeof(float) * static_cast<std::size_t>(tokens), '\0'));
  }
  return request.SerializeAsString();
}

using OnArrival = std::function<void(grpc::ClientContext&)>;

// Attention on a connection of its own; calls `on_arrival` once the server has the call. REQUIRES: the server polls
// with one thread, which takes a connection's calls in their order.
RawAnswer CallSdpa(const ServerProcess& server, int tokens, const OnArrival& on_arrival,
                   const std::shared_ptr<grpc::ClientContext>& own_context = nullptr) {
  const auto channel = MakeTestChannel(server.address());
  const auto is_answered = [&channel] { return CallRaw(channel, kInfo, "").status.ok(); };
  const auto ask = [&is_answered] { EXPECT_TRUE(is_answered()); };
  EXPECT_TRUE(WaitFor(is_answered));  // Of many that connect at once, one may have to try again.
  const auto on_started = [&](grpc::ClientContext& context) {
    ask();  // Answered after the call before it has arrived.
    on_arrival(context);
  };
  return CallRaw(channel, kSdpa, SdpaRequest(tokens),
                 {.timeout = std::chrono::hours(10000), .context = own_context, .on_started = on_started});
}

// Of the admin door, as the log says.
int AdminPort(const ServerProcess& server) {
  const std::string log = server.standard_error(), before = " port=";
  const std::size_t port = log.find(before, log.find("admin door open"));
  return port == std::string::npos ? 0 : std::atoi(log.c_str() + port + before.size());
}

// The processor time that the server has used so far.
std::chrono::milliseconds ProcessorTime(const ServerProcess& server) {
  clockid_t clock = 0;
  timespec time{};
  EXPECT_EQ(clock_getcpuclockid(server.pid(), &clock), 0);
  EXPECT_EQ(clock_gettime(clock, &time), 0);
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::seconds(time.tv_sec) +
                                                               std::chrono::nanoseconds(time.tv_nsec));
}

TEST(ServerProcessTest, SigtermLosesNoneOfSixteenCallsInFlight) {
  // The one thread that computes is taken by a call that takes minutes, so none of the sixteen can end too early.
  ServerProcess server({.flags = {"--threads=1", "--polling-threads=1", "--inline-flops=0", "--drain-timeout=10m",
                                  "--admin-listen=127.0.0.1:0"}});
  const auto context = std::make_shared<grpc::ClientContext>();
  std::atomic<bool> first_arrived{false};
  std::thread first([&] {
    CallSdpa(
        server, 1 << 20, [&](grpc::ClientContext&) { first_arrived = true; }, context);
  });
  ASSERT_TRUE(WaitFor([&] { return first_arrived.load(); }));
  const auto before = ProcessorTime(server);
  ASSERT_TRUE(WaitFor([&] { return ProcessorTime(server) - before > std::chrono::milliseconds(300); }));

  std::atomic<int> arrived{0};
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&] {
      const RawAnswer answer = CallSdpa(server, 1024, [&](grpc::ClientContext&) { ++arrived; });
      EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
      if (answer.response.size() > sizeof(float) * 1024) ++answered;
    });
  }
  ASSERT_TRUE(WaitFor([&] { return arrived == 16; }));
  // A call whose answer has come counts until the server has seen the end of it.
  const int admin_port = AdminPort(server);
  ASSERT_TRUE(WaitFor(
      [&] { return HttpGet(admin_port, "/metrics").find("\nattend_calls_in_flight 17\n") != std::string::npos; }));
  server.Signal(SIGTERM);
  ASSERT_TRUE(WaitFor([&] { return server.standard_error().find("draining") != std::string::npos; }));
  EXPECT_THAT(server.standard_error(), HasSubstr("calls_in_flight=17"));
  EXPECT_EQ(answered, 0);
  context->TryCancel();
  EXPECT_EQ(server.Wait(), 0) << server.standard_error();
  first.join();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 16);
}

TEST(ServerProcessTest, SigintEndsItToo) {
  ServerProcess server;
  server.Signal(SIGINT);
  EXPECT_EQ(server.Wait(), 0) << server.standard_error();
}

TEST(ServerProcessTest, ASecondSignalEndsALongDrain) {
  ServerProcess server({.flags = {"--drain-wait=1h"}});
  server.Signal(SIGTERM);
  ASSERT_TRUE(WaitFor([&] { return server.standard_error().find("draining") != std::string::npos; }));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.standard_error();
}

TEST(ServerProcessTest, SighupEndsNothing) {
  ServerProcess server;
  for (int i = 0; i < 20; ++i) {
    server.Signal(SIGHUP);
    EXPECT_NE(Info(server).version(), "");
  }
  EXPECT_EQ(server.Terminate(), 0);
}

TEST(ServerProcessTest, ServerInfoReportsTheEffectiveConfiguration) {
  ServerProcess server({.flags = {"--max-request-bytes=12345", "--instruction-set=baseline"},
                        .environment = {"ATTEND_THREADS=3", "ATTEND_MAX_QUEUED_REQUESTS=7"}});
  const auto info = Info(server);
  EXPECT_EQ(info.num_threads(), 3);
  EXPECT_EQ(info.limits().max_queued_requests(), 7);
  EXPECT_EQ(info.limits().max_request_bytes(), 12345);
  EXPECT_EQ(info.instruction_set(), "BASELINE");
  EXPECT_FALSE(info.bit_reproducible());
  EXPECT_GT(info.supported_data_types_size(), 0);
}

TEST(ServerProcessTest, SeveralAddressesAreServedAndTheirPortsWritten) {
  ServerProcess server({.flags = {"--listen=127.0.0.1:0"}});
  EXPECT_THAT(server.standard_error(), HasSubstr("port=" + std::to_string(server.port())));
  std::size_t listening = 0;
  std::istringstream log(server.standard_error());
  for (std::string line; std::getline(log, line);) listening += line.find("listening") != std::string::npos ? 1 : 0;
  EXPECT_EQ(listening, 2u);
}

TEST(ServerProcessTest, JsonLogParsesLineByLineWithALineForEachCallAtDebug) {
  ServerProcess server({.flags = {"--log-format=json", "--log-level=debug"}});
  Info(server);
  CallRaw(MakeTestChannel(server.address()), "/no.Such/Method", "");
  ASSERT_EQ(server.Terminate(), 0);
  std::vector<nlohmann::json> calls;
  std::istringstream log(server.standard_error());
  for (std::string line; std::getline(log, line);) {
    const auto json = nlohmann::json::parse(line);
    EXPECT_TRUE(json.contains("time") && json.contains("level") && json.contains("message")) << line;
    if (json.at("message") == "call finished") calls.push_back(json);
  }
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].at("method"), kInfo);
  EXPECT_EQ(calls[0].at("code"), "OK");
  EXPECT_GT(calls[0].at("response_bytes").get<int>(), 0);
  EXPECT_THAT(calls[0].at("peer").get<std::string>(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(calls[1].at("code"), "UNIMPLEMENTED");
}

TEST(ServerProcessTest, ATakenPortIsAnErrorAndNotShared) {
  ServerProcess first;
  ServerProcess second({.flags = {"--listen=" + first.address()}, .wait_until_ready = false});
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.standard_error(), HasSubstr(first.address()));
  EXPECT_NE(Info(first).version(), "");
}

TEST(ServerProcessTest, WrongFlagsEndWithTwoAndQuestionsWithZero) {
  struct Case {
    std::string flag;
    int exit_code;
    std::string output;
    std::string error;
  };
  const std::vector<Case> cases = {
      {"--no-such-flag", 2, "", "no-such-flag"},
      {"--instruction-set=neon", 2, "", "--instruction-set"},
      {"--tls-cert=/no/file", 2, "", "--tls-key"},
      {"--check-config", 0, "valid", ""},
      {"--print-config", 0, "max-queued-requests = 64", ""},
      {"--version", 0, ".", ""},
      {"--help", 0, "--listen", ""},
  };
  for (const Case& c : cases) {
    ServerProcess server({.flags = {c.flag}, .wait_until_ready = false});
    EXPECT_EQ(server.Wait(), c.exit_code) << c.flag;
    EXPECT_THAT(server.standard_output(), HasSubstr(c.output)) << c.flag;
    EXPECT_THAT(server.standard_error(), HasSubstr(c.error)) << c.flag;
  }
}

// What --check-config accepts starts, and what would not start it does not accept.
TEST(ServerProcessTest, CheckConfigMakesTheChecksOfAStart) {
  const TemporaryText text("not a certificate");
  struct Case {
    std::vector<std::string> flags;
    std::string error;
  };
  const std::vector<Case> cases = {
      {{"--tls-cert=/no/such.crt", "--tls-key=/no/such.key"}, "--tls-cert: cannot read '/no/such.crt'"},
      {{"--tls-cert=" + text.path(), "--tls-key=" + text.path()}, "is not a PEM file"},
      {{"--instruction-set=neon"},
       "--instruction-set: this machine does not run neon"},  // The tests' machines are x86.
      {{"--listen=nowhere"}, "--listen: 'nowhere' is not host:port"},
      {{"--config=/proc/self/mem"}, "/proc/self/mem: reading it failed"},
  };
  for (const Case& c : cases) {
    for (const bool check : {true, false}) {
      std::vector<std::string> flags = c.flags;
      if (check) flags.emplace_back("--check-config");
      ServerProcess server({.flags = flags, .wait_until_ready = false});
      EXPECT_EQ(server.Wait(), 2) << c.flags[0];
      EXPECT_EQ(server.standard_output(), "");
      EXPECT_THAT(server.standard_error(), HasSubstr(c.error));
    }
  }
}

// A server with these files ends with 2, at the start as at --check-config, and `sentence` is the last that it says.
void ExpectTlsFilesRefused(const std::string& certificate, const std::string& key, const std::string& sentence) {
  for (const bool check : {true, false}) {
    std::vector<std::string> flags = {"--tls-cert=" + certificate, "--tls-key=" + key};
    if (check) flags.emplace_back("--check-config");
    ServerProcess server({.flags = flags, .wait_until_ready = false});
    EXPECT_EQ(server.Wait(), 2);
    EXPECT_EQ(server.standard_output(), "");
    EXPECT_THAT(server.standard_error(), EndsWith((check ? "attend-server: " : " error ") + sentence + "\n"));
  }
}

TEST(ServerProcessTest, ExchangedAndEncryptedTlsFilesAreNamedWithTheCause) {
  const TemporaryFolder folder;
  const std::string key = folder.path() + "/server.key", certificate = folder.path() + "/server.crt";
  const std::string encrypted = folder.path() + "/encrypted.key";
  for (const std::string& command :
       {"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout " + key +
            " -out " + certificate,
        "pkcs8 -topk8 -v2 aes128 -passout pass:abcd -in " + key + " -out " + encrypted}) {
    ASSERT_EQ(std::system(("openssl " + command + " 2>/dev/null").c_str()), 0) << command;
  }
  const std::vector<std::string> pair = {"--tls-cert=" + certificate, "--tls-key=" + key, "--check-config"};
  EXPECT_EQ(ServerProcess({.flags = pair, .wait_until_ready = false}).Wait(), 0);
  const std::string exchanged = "; are --tls-cert and --tls-key exchanged?";
  const std::string no_certificate = "--tls-cert: '" + key + "' holds a private key and no certificate" + exchanged;
  ExpectTlsFilesRefused(key, certificate, no_certificate);
  ExpectTlsFilesRefused(key, key, no_certificate);
  ExpectTlsFilesRefused(certificate, certificate,
                        "--tls-key: '" + certificate + "' holds a certificate and no private key" + exchanged);
  ExpectTlsFilesRefused(certificate, encrypted,
                        "--tls-key: '" + encrypted +
                            "' is encrypted, and nobody can be asked for its passphrase; write it without one: "
                            "openssl pkey -in ENCRYPTED -out FILE");
}

TEST(ServerProcessTest, CheckConfigWarnsOfTypos) {
  ServerProcess server({.flags = {"--check-config"}, .environment = {"ATTEND_THREAD=1"}, .wait_until_ready = false});
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.standard_output(), EndsWith("\nthe configuration is valid\n"));
  EXPECT_THAT(server.standard_error(), HasSubstr("did you mean ATTEND_THREADS?"));
}

TEST(ServerProcessTest, TheLogNamesTheInstructionSetInUse) {
  ServerProcess server;
  EXPECT_THAT(server.standard_error(), HasSubstr("instruction_set=" + Info(server).instruction_set()));
}

TEST(ServerProcessTest, ATypoInTheEnvironmentIsReported) {
  ServerProcess server({.environment = {"ATTEND_THREAD=1", "ATTEND_ENDPOINTS=a:1"}});
  EXPECT_THAT(server.standard_error(), HasSubstr("ATTEND_THREADS"));
  EXPECT_THAT(server.standard_error(), ::testing::Not(HasSubstr("ATTEND_ENDPOINTS")));
}

}  // namespace
}  // namespace attend::testing
