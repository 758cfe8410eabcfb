// Guards what the client library promises of every call: a deadline, retries of the right calls alone, errors with
// their details, large messages, balancing, TLS. The server is a fake, so that it fails exactly when told to.
#include "client/lib/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "client/lib/server_error.h"
#include "client/lib/tensor.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/client/fake_server.h"
#include "tests/support/temporary_folder.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

const CallOptions kCall(absl::Seconds(20));

// Only a hang lasts so long.
absl::Time InAMinute() { return absl::Now() + absl::Minutes(1); }

grpc::Status Ok(int, grpc::ServerContext*, const v1::AttendRequest&, v1::AttendResponse*) { return grpc::Status::OK; }

// Fails the first `failures` calls with `code`.
FakeServer::Handler FailFirst(int failures, grpc::StatusCode code) {
  return [=](int call, grpc::ServerContext*, const v1::AttendRequest&, v1::AttendResponse*) {
    return call < failures ? grpc::Status(code, "not now") : grpc::Status::OK;
  };
}

Client Connect(const std::vector<std::string>& endpoints) { return *Client::Connect({.endpoints = endpoints}); }

v1::AttendRequest RequestOf(std::int64_t bytes) {
  v1::AttendRequest request;
  *request.mutable_embeddings()->mutable_data() = std::string(static_cast<std::size_t>(bytes), 'x');
  return request;
}

TEST(Client, ReturnsTheAnswerWithItsReceipt) {
  FakeServer server(
      [](int, grpc::ServerContext* context, const v1::AttendRequest& request, v1::AttendResponse* response) {
        context->AddTrailingMetadata("server-timing", "receive;dur=0.25, compute;dur=3.5");
        *response->mutable_output() = request.embeddings();
        return grpc::Status::OK;
      });
  const Client client = Connect({server.endpoint()});
  v1::AttendRequest request;
  const float values[] = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(Tensor::FromFloats({2, 3}, values).MoveTo(request.mutable_embeddings()).ok());
  absl::StatusOr<CallResult<v1::AttendResponse>> answer = client.Attend(request, kCall);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(Tensor::FromProto(std::move(*answer->response.mutable_output()))->floats(),
              ElementsAre(1, 2, 3, 4, 5, 6));
  ASSERT_EQ(answer->server_timing.size(), 2u);
  EXPECT_EQ(answer->server_timing[1].name, "compute");
  EXPECT_EQ(answer->server_timing[1].milliseconds, 3.5);
  EXPECT_EQ(answer->peer, "ipv4:" + server.endpoint());
  EXPECT_GT(answer->round_trip, absl::ZeroDuration());
}

TEST(Client, UnpacksEveryDetailOfARefusal) {
  FakeServer server([](int, grpc::ServerContext* context, const v1::AttendRequest&, v1::AttendResponse*) {
    google::rpc::ErrorInfo info;
    info.set_reason("INVALID_FIELD");
    info.set_domain("attend.v1");
    (*info.mutable_metadata())["flag"] = "--max-request-bytes";
    google::rpc::BadRequest bad_request;
    for (const char* field : {"query.shape[2]", "options.scale"}) {
      google::rpc::BadRequest::FieldViolation* violation = bad_request.add_field_violations();
      violation->set_field(field);
      violation->set_description(std::string(field) + " is wrong");
    }
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(1);
    retry.mutable_retry_delay()->set_nanos(500000000);
    google::rpc::Status details;
    details.set_code(3);
    details.add_details()->PackFrom(info);
    details.add_details()->PackFrom(bad_request);
    details.add_details()->PackFrom(retry);
    context->AddTrailingMetadata("server-timing", "receive;dur=1");
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "two fields are wrong", details.SerializeAsString());
  });
  const absl::Status status = Connect({server.endpoint()}).Attend({}, kCall).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "two fields are wrong");
  EXPECT_TRUE(AnsweredByServer(status));
  const ServerError error = GetServerError(status);
  EXPECT_EQ(error.reason, "INVALID_FIELD");
  EXPECT_EQ(error.domain, "attend.v1");
  EXPECT_THAT(error.metadata, ElementsAre(Pair("flag", "--max-request-bytes")));
  ASSERT_EQ(error.field_violations.size(), 2u);
  EXPECT_EQ(error.field_violations[1].field, "options.scale");
  EXPECT_EQ(error.field_violations[1].description, "options.scale is wrong");
  EXPECT_EQ(error.retry_delay, absl::Milliseconds(1500));
  ASSERT_EQ(error.server_timing.size(), 1u);
  EXPECT_EQ(error.server_timing[0].name, "receive");
  EXPECT_EQ(error.field_violations[0].field, "query.shape[2]");
}

TEST(Client, DetailsThatDoNotParseLeaveTheErrorAsItIs) {
  FakeServer server([](int, grpc::ServerContext*, const v1::AttendRequest&, v1::AttendResponse*) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", std::string("\xff\xff\xff"));
  });
  const absl::Status status = Connect({server.endpoint()}).Attend({}, kCall).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetServerError(status).reason, "");
}

TEST(Client, RepeatsUnavailableUpToFourAttempts) {
  FakeServer twice(FailFirst(3, grpc::StatusCode::UNAVAILABLE));
  EXPECT_TRUE(Connect({twice.endpoint()}).Attend({}, kCall).ok());
  EXPECT_EQ(twice.calls(), 4);
  FakeServer always(FailFirst(100, grpc::StatusCode::UNAVAILABLE));
  EXPECT_EQ(Connect({always.endpoint()}).Attend({}, kCall).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(always.calls(), 4);
}

TEST(Client, RepeatsNothingButUnavailable) {
  for (const grpc::StatusCode code :
       {grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::INTERNAL,
        grpc::StatusCode::ABORTED, grpc::StatusCode::UNKNOWN}) {
    FakeServer server(FailFirst(1, code));
    EXPECT_FALSE(Connect({server.endpoint()}).Attend({}, kCall).ok()) << code;
    EXPECT_EQ(server.calls(), 1) << code;
  }
}

// gRPC never repeats a call whose request is larger than its retry buffer, 256 KiB unless it is raised.
TEST(Client, RepeatsLargeRequestsToo) {
  FakeServer server(FailFirst(2, grpc::StatusCode::UNAVAILABLE));
  const absl::Status status = Connect({server.endpoint()}).Attend(RequestOf(3 << 20), kCall).status();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(server.calls(), 3);
}

// gRPC refuses to receive more than 4 MiB unless it is told otherwise.
TEST(Client, SendsAndReceivesLargeMessages) {
  FakeServer server([](int, grpc::ServerContext*, const v1::AttendRequest& request, v1::AttendResponse* response) {
    *response->mutable_output() = request.embeddings();
    return grpc::Status::OK;
  });
  const auto answer = Connect({server.endpoint()}).Attend(RequestOf(9 << 20), kCall);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->response.output().data().size(), 9u << 20);
}

// gRPC ends the process for a message that protobuf cannot write, which is from 2^31 bytes on.
TEST(Client, SendsNoMessageBeyondItsLimit) {
  FakeServer server(Ok);
  const v1::AttendRequest request = RequestOf(1000);
  const auto bytes = static_cast<std::int64_t>(request.ByteSizeLong());
  const auto large = Client::Connect({.endpoints = {server.endpoint()}, .max_message_bytes = bytes});
  EXPECT_TRUE(large->Attend(request, kCall).ok());
  const auto small = Client::Connect({.endpoints = {server.endpoint()}, .max_message_bytes = bytes - 1});
  const absl::Status status = small->Attend(request, kCall).status();
  EXPECT_EQ(status, absl::ResourceExhaustedError("the message has " + std::to_string(bytes) +
                                                 " bytes; this client sends at most " + std::to_string(bytes - 1) +
                                                 " (max_message_bytes)"));
  v1::ScaledDotProductAttentionRequest sdpa;
  *sdpa.mutable_query() = request.embeddings();
  EXPECT_EQ(small->ScaledDotProductAttention(sdpa, kCall).status(), status);
  v1::EstimateCostRequest estimate;
  *estimate.mutable_attend() = request;
  const std::string name(1000, 'x');
  for (const absl::Status& other :
       {small->EstimateCost(estimate, kCall).status(), small->CheckHealth(name + name, kCall).status(),
        small->WatchHealth(name + name, kCall, [](HealthState) { return true; })}) {
    EXPECT_THAT(std::string(other.message()), ::testing::EndsWith("(max_message_bytes)"));
  }
  EXPECT_EQ(server.calls(), 1);
}

TEST(Client, RefusesToCallWithoutADeadline) {
  FakeServer server(Ok);
  const Client client = Connect({server.endpoint()});
  for (const absl::Duration timeout : {absl::ZeroDuration(), -absl::Seconds(1), absl::InfiniteDuration()}) {
    EXPECT_EQ(client.Attend({}, CallOptions(timeout)).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(client.WatchHealth("", CallOptions(absl::ZeroDuration()), [](HealthState) { return true; }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server.calls(), 0);
}

TEST(Client, EndsACallAtItsDeadlineAndTellsTheServer) {
  FakeServer server([](int, grpc::ServerContext* context, const v1::AttendRequest&, v1::AttendResponse*) {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::CANCELLED;
  });
  const absl::Status status = Connect({server.endpoint()}).Attend({}, CallOptions(absl::Milliseconds(200))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(AnsweredByServer(status));
}

TEST(Client, AnUnreachableServerIsUnavailableAndNotAnAnswer) {
  // Bound, so that no server of another test gets the port while the call is repeated; nothing listens on it.
  const int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in own{.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof own;
  ASSERT_EQ(bind(bound, reinterpret_cast<const sockaddr*>(&own), size), 0);
  ASSERT_EQ(getsockname(bound, reinterpret_cast<sockaddr*>(&own), &size), 0);
  const std::string endpoint = "127.0.0.1:" + std::to_string(ntohs(own.sin_port));
  const absl::Status status = Connect({endpoint}).Attend({}, kCall).status();
  close(bound);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(AnsweredByServer(status));
}

TEST(Client, GoesRoundAllEndpoints) {
  FakeServer first(Ok);
  FakeServer second(Ok);
  const Client client = Connect({first.endpoint(), second.endpoint()});
  CallOptions call = kCall;
  call.wait_for_ready = true;
  const absl::Time end = InAMinute();
  while ((first.calls() == 0 || second.calls() == 0) && absl::Now() < end) {
    ASSERT_TRUE(client.Attend({}, call).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GT(first.calls(), 0);
  EXPECT_GT(second.calls(), 0);
}

TEST(Client, IgnoresWebProxiesOfTheEnvironment) {
  FakeServer server(Ok);
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  const absl::Status status = Connect({server.endpoint()}).Attend({}, kCall).status();
  unsetenv("http_proxy");
  EXPECT_TRUE(status.ok()) << status;
}

TEST(Client, ChecksAndWatchesHealth) {
  FakeServer server(Ok);
  const Client client = Connect({server.endpoint()});
  EXPECT_EQ(*client.CheckHealth("", kCall), HealthState::kServing);
  EXPECT_EQ(client.CheckHealth("nobody", kCall).status().code(), absl::StatusCode::kNotFound);
  std::vector<HealthState> seen;
  const absl::Status status = client.WatchHealth("some", kCall, [&](HealthState state) {
    seen.push_back(state);
    if (state == HealthState::kServiceUnknown) server.health()->SetServingStatus("some", true);
    if (state == HealthState::kServing) server.health()->SetServingStatus("some", false);
    return state != HealthState::kNotServing;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(seen, ElementsAre(HealthState::kServiceUnknown, HealthState::kServing, HealthState::kNotServing));
}

TEST(Client, CallsNoneOfSeveralServersThatIsNotServing) {
  FakeServer leaving(Ok), staying(Ok);
  const Client client = Connect({leaving.endpoint(), staying.endpoint()});
  while (leaving.calls() == 0 || staying.calls() == 0) ASSERT_TRUE(client.Attend(v1::AttendRequest(), kCall).ok());
  leaving.health()->SetServingStatus(false);
  // The client hears of it within a moment: after a round without a call there.
  int before = -1;
  const absl::Time end = InAMinute();
  while (before != leaving.calls() && absl::Now() < end) {
    before = leaving.calls();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(client.Attend(v1::AttendRequest(), kCall).ok());
  }
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(client.Attend(v1::AttendRequest(), kCall).ok());
  EXPECT_EQ(leaving.calls(), before);
  // Health itself can be asked for even when nobody is healthy, and calls fail at once.
  staying.health()->SetServingStatus(false);
  EXPECT_EQ(*client.CheckHealth("", kCall), HealthState::kNotServing);
  absl::Status status;
  while (status.ok() && absl::Now() < end) status = client.Attend(v1::AttendRequest(), kCall).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_FALSE(AnsweredByServer(status));
}

TEST(Client, WatchesHealthAsItIsTold) {
  FakeServer server(Ok);
  server.health()->SetServingStatus(false);
  EXPECT_TRUE(Connect({server.endpoint()}).Attend(v1::AttendRequest(), kCall).ok());
  const auto watching = Client::Connect({.endpoints = {server.endpoint()}, .watch_health = true});
  EXPECT_EQ(watching->Attend(v1::AttendRequest(), kCall).status().code(), absl::StatusCode::kUnavailable);
  FakeServer other(Ok);
  const auto blind = Client::Connect({.endpoints = {server.endpoint(), other.endpoint()}, .watch_health = false});
  const int before = server.calls();
  for (const absl::Time end = InAMinute(); server.calls() == before && absl::Now() < end;) {
    ASSERT_TRUE(blind->Attend(v1::AttendRequest(), kCall).ok());
  }
  EXPECT_GT(server.calls(), before);
}

TEST(Client, RefusesOptionsThatCannotWork) {
  EXPECT_FALSE(Client::Connect({.endpoints = {}}).ok());
  EXPECT_FALSE(Client::Connect({.endpoints = {"no/where"}}).ok());
  EXPECT_FALSE(Client::Connect({.tls = TlsOptions{.client_certificate = "x"}}).ok());
  EXPECT_FALSE(Client::Connect({.tls = TlsOptions{.client_key = "x"}}).ok());
  EXPECT_FALSE(Client::Connect({.max_message_bytes = 0}).ok());
  EXPECT_FALSE(Client::Connect({.max_message_bytes = std::int64_t{1} << 31}).ok());
}

TEST(Client, SendsItsTokenWithEachAttempt) {
  std::vector<std::string> seen;
  FakeServer server([&](int call, grpc::ServerContext* context, const v1::AttendRequest&, v1::AttendResponse*) {
    const auto [first, end] = context->client_metadata().equal_range("authorization");
    for (auto entry = first; entry != end; ++entry) seen.emplace_back(entry->second.data(), entry->second.size());
    return call == 0 ? grpc::Status(grpc::UNAVAILABLE, "not now") : grpc::Status::OK;
  });
  const absl::StatusOr<Client> client = Client::Connect({.endpoints = {server.endpoint()}, .token = "secret"});
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(client->Attend(v1::AttendRequest(), kCall).ok());
  EXPECT_THAT(seen, ElementsAre("Bearer secret", "Bearer secret"));
}

TEST(Client, SendsATokenToOtherMachinesInTlsAlone) {
  const absl::Status refused = Client::Connect({.endpoints = {"10.0.0.1:1"}, .token = "secret"}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("ipv4:10.0.0.1:1"));
  EXPECT_THAT(std::string(refused.message()), ::testing::Not(::testing::HasSubstr("secret")));
  EXPECT_TRUE(Client::Connect({.endpoints = {"10.0.0.1:1"}}).ok());
  EXPECT_TRUE(Client::Connect({.endpoints = {"10.0.0.1:1"}, .tls = TlsOptions(), .token = "secret"}).ok());
  EXPECT_TRUE(Client::Connect({.endpoints = {"10.0.0.1:1"}, .token = "secret", .insecure = true}).ok());
  EXPECT_FALSE(Client::Connect({.token = "not one\nword"}).ok()) << "gRPC would end the process";
}

// Certificates made for this run: one authority, a server `attend.test`, a client.
class ClientTls : public ::testing::Test {
 protected:
  ClientTls() {
    Run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj "
        "/CN=ca");
    for (const std::string name : {"server", "client"}) {
      std::ofstream(directory_ / "san") << "subjectAltName=DNS:attend.test\n";
      Run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " + name + ".key -out " + name +
          ".csr -subj /CN=" + name);
      Run("openssl x509 -req -in " + name + ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out " +
          name + ".pem");
    }
  }

  void Run(const std::string& command) {
    const std::string quiet = "cd " + directory_.string() + " && " + command + " >/dev/null 2>&1";
    ASSERT_EQ(std::system(quiet.c_str()), 0) << command;
  }

  std::string Pem(const std::string& name) const {
    std::ifstream in(directory_ / name);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::shared_ptr<grpc::ServerCredentials> ServerCredentials() const {
    grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = Pem("ca.pem");
    options.pem_key_cert_pairs.push_back({Pem("server.key"), Pem("server.pem")});
    return grpc::SslServerCredentials(options);
  }

  const attend::testing::TemporaryFolder folder_;
  const std::filesystem::path directory_ = folder_.path();
};

TEST_F(ClientTls, MutualTlsWorksAndNothingLessDoes) {
  FakeServer server(Ok, ServerCredentials());
  const TlsOptions good{Pem("ca.pem"), Pem("client.pem"), Pem("client.key"), "attend.test"};
  const auto call = [&](std::optional<TlsOptions> tls) {
    return Client::Connect({.endpoints = {server.endpoint()}, .tls = std::move(tls)})->Attend({}, kCall).status();
  };
  EXPECT_TRUE(call(good).ok()) << call(good);
  EXPECT_FALSE(call(std::nullopt).ok()) << "plaintext was accepted";
  TlsOptions other = good;
  other.server_name.clear();
  EXPECT_FALSE(call(other).ok()) << "a certificate for another name was accepted";
  other = good;
  other.ca_certificates.clear();
  EXPECT_FALSE(call(other).ok()) << "a certificate of an unknown authority was accepted";
  other = good;
  other.client_certificate.clear();
  other.client_key.clear();
  EXPECT_FALSE(call(other).ok()) << "a client without a certificate was served";
}

}  // namespace
}  // namespace attend::client
