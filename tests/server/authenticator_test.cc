// Who calls, by token, certificate or nothing at all, and what each may do.
#include "server/identity/authenticator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <chrono>
#include <cstddef>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/error.h"
#include "formats/files/sha256.h"
#include "server/base/logging.h"
#include "server/rpc/audit.h"
#include "server/rpc/call_credentials.h"
#include "server/rpc/inbound_call.h"
#include "server/rpc/known_peers.h"
#include "tests/support/temporary_folder.h"

namespace attend::server {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

constexpr absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);  // 2027-01-15.

std::string Sha256(const std::string& text) { return formats::ToHex(formats::Sha256::Of(text)); }

class AuthenticatorTest : public ::testing::Test {
 protected:
  std::unique_ptr<Authenticator> Make(const std::string& json, std::optional<Roles> anonymous = std::nullopt) {
    path_ = json.empty() ? "" : folder_.Write("principals.json", json);
    auto made = Authenticator::Create({.principals_path = path_, .anonymous_roles = anonymous});
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  static std::string Who(const Authenticator& authenticator, const Credentials& credentials) {
    const auto principal = authenticator.Authenticate(credentials, kNow);
    if (!principal.ok()) return GetErrorDetails(principal.status()).reason;
    return absl::StrCat((*principal)->name, " ", (*principal)->roles.Names());
  }
  static std::string File(const std::string& token_fields = "") {
    return absl::StrCat(R"({"principals": [{"name": "a", "roles": ["compute"], "certificates": ["uri:spiffe://x/a",
        "cn:a"], "tokens": [{"sha256": ")",
                        Sha256("secret"), "\"", token_fields, R"(}]}, {"name": "b", "certificates": ["dns:b"]}]})");
  }

  const TemporaryFolder folder_;
  std::string path_;
};

TEST_F(AuthenticatorTest, AnonymousCallersHaveAllRolesOnThisMachineAndFewerFromElsewhere) {
  const auto authenticator = Make("");
  EXPECT_EQ(Who(*authenticator, {.is_local = true}), "anonymous compute,layers,observe");
  EXPECT_EQ(Who(*authenticator, {.is_local = false}), "anonymous compute,observe");
  const auto some = Make("", Roles::Layers());
  EXPECT_EQ(Who(*some, {.is_local = true}), "anonymous layers");
  EXPECT_EQ(Who(*some, {.is_local = false}), "anonymous layers");
  const auto none = Make("", Roles());
  EXPECT_EQ(Who(*none, {.is_local = true}), "NO_CREDENTIAL");
  EXPECT_EQ(Who(*none, {.is_local = false}), "NO_CREDENTIAL");
}

TEST_F(AuthenticatorTest, ATokenCountsBeforeACertificateAndAnonymity) {
  const auto authenticator = Make(File());
  EXPECT_EQ(Who(*authenticator, {.authorization = "Bearer secret"}), "a compute");
  EXPECT_EQ(Who(*authenticator, {.authorization = "bearer  secret "}), "a compute");
  EXPECT_EQ(Who(*authenticator, {.authorization = "Bearer secret", .certificate = {"dns:b"}}), "a compute");
  for (const char* bad : {"Bearer secre", "Bearer secret2", "Bearer", "Bearer ", "", "secret", "Basic secret"}) {
    EXPECT_EQ(Who(*authenticator, {.authorization = bad, .certificate = {"dns:b"}, .is_local = true}), "BAD_CREDENTIAL")
        << bad;
  }
}

TEST_F(AuthenticatorTest, ATokenEndsAtItsTime) {
  EXPECT_EQ(Who(*Make(File(R"(, "expires": "2027-01-15T08:00:01Z")")), {.authorization = "Bearer secret"}),
            "a compute");
  EXPECT_EQ(Who(*Make(File(R"(, "expires": "2027-01-15T08:00:00Z")")), {.authorization = "Bearer secret"}),
            "BAD_CREDENTIAL");
}

TEST_F(AuthenticatorTest, ACertificateIsKnownByOneOfItsNamesExactly) {
  const auto authenticator = Make(File());
  EXPECT_EQ(Who(*authenticator, {.certificate = {"uri:spiffe://x/a"}}), "a compute");
  EXPECT_EQ(Who(*authenticator, {.certificate = {"dns:c", "cn:a"}}), "a compute");
  EXPECT_EQ(Who(*authenticator, {.certificate = {"dns:b"}}), "b none");
  for (const char* other : {"dns:a", "cn:A", "uri:spiffe://x/a/", "uri:spiffe://x/", "cn:b", "a"}) {
    EXPECT_EQ(Who(*authenticator, {.certificate = {other}, .is_local = true}), "BAD_CREDENTIAL") << other;
  }
  EXPECT_EQ(Who(*Make(""), {.certificate = {"cn:any"}}), "certificate compute,layers,observe");
}

TEST_F(AuthenticatorTest, AFileThatCannotBeUsedKeepsTheLastOneInForce) {
  const auto authenticator = Make(File());
  EXPECT_FALSE(*authenticator->Reload()) << "nothing has changed";
  for (const char* bad : {"", "{", R"({"principals": [{"name": "a", "roles": ["root"]}]})"}) {
    std::ofstream(path_) << bad;
    EXPECT_FALSE(authenticator->Reload().ok()) << bad;
    EXPECT_EQ(Who(*authenticator, {.authorization = "Bearer secret"}), "a compute");
  }
  std::ofstream(path_) << R"({"principals": []})";
  EXPECT_TRUE(*authenticator->Reload());
  EXPECT_EQ(Who(*authenticator, {.authorization = "Bearer secret"}), "BAD_CREDENTIAL");
}

// Each would have a label in the metrics for as long as the server lives.
TEST_F(AuthenticatorTest, AFileThatCannotBeUsedLeavesNoTenantBehind) {
  const auto names = [](const Authenticator& authenticator) {
    std::vector<std::string> all;
    for (const TenantRef& tenant : authenticator.tenants().All()) all.push_back(tenant->name());
    return all;
  };
  const auto authenticator = Make(R"({"principals": [{"name": "a", "tenant": "old"}]})");
  folder_.Write("principals.json", R"({"principals": [{"name": "a", "tenant": "new"}, {"name": ""}]})");
  EXPECT_FALSE(authenticator->Reload().ok());
  EXPECT_THAT(names(*authenticator), ElementsAre("shared", "old"));
  folder_.Write("principals.json", R"({"principals": [{"name": "a", "tenant": "new"}]})");
  EXPECT_TRUE(authenticator->Reload().ok());
  EXPECT_THAT(names(*authenticator), ElementsAre("shared", "old", "new"));
}

TEST_F(AuthenticatorTest, AFileWithAKeyTwiceIsRefused) {
  for (const auto& [text, key] : std::vector<std::pair<std::string, std::string>>{
           {R"({"principals": [{"name": "a"}], "principals": []})", "principals"},
           {R"({"principals": [{"name": "a", "roles": ["layers"], "roles": ["compute"]}]})", "roles"},
           {R"({"principals": [{"name": "a", "tokens": [], "tokens": []}]})", "tokens"},
           {R"({"tenants": [{"name": "a", "weight": 1, "weight": 2}], "principals": []})", "weight"}}) {
    const auto made = Authenticator::Create({.principals_path = folder_.Write("twice.json", text)});
    EXPECT_THAT(std::string(made.status().message()), HasSubstr("the key '" + key + "' comes twice")) << text;
  }
}

// A call of nobody that is known.
class SomeCall final : public InboundCall {
 public:
  explicit SomeCall(std::string request_id, std::string traceparent = "")
      : request_id_(std::move(request_id)), traceparent_(std::move(traceparent)) {}
  std::chrono::system_clock::time_point deadline() const override { return {}; }
  const std::string& method() const override { return method_; }
  std::string peer() const override { return "ipv4:10.0.0.1:1"; }
  std::string_view Metadata(const char* name) const override {
    const std::string_view wanted = name;
    if (wanted == "x-request-id") return request_id_;
    return wanted == "traceparent" ? std::string_view(traceparent_) : std::string_view();
  }

 private:
  void Delete() override {}
  const std::string request_id_, traceparent_;
  const std::string method_ = "/Method";
};

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// A flood that ends leaves no further denial that would bring the count. Ids of their own make no denial another one.
TEST(AuditTest, DenialsThatAreLeftOutAreCountedAlthoughNoneFollows) {
  std::ostringstream out;
  Log log({.format = LogFormat::kText}, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  const auto flood = [](Audit& audit, int denials) {
    for (int i = 0; i < denials; ++i) audit.Denied(SomeCall(absl::StrCat(i)), "MISSING_ROLE");
  };
  {
    Audit audit(log);
    flood(audit, 2000);
    EXPECT_LE(Count(out.str(), "event=denied"), 500) << "even if the flood takes longer than a window";
    audit.RecordLeftOut(Audit::Clock::now() + std::chrono::hours(1));
    EXPECT_THAT(out.str(), HasSubstr("denials left out"));
    out.str("");
    audit.RecordLeftOut(Audit::Clock::now() + std::chrono::hours(1));
  }
  EXPECT_EQ(out.str(), "") << "once";
  {
    Audit audit(log);
    flood(audit, 2000);
    out.str("");
  }
  EXPECT_THAT(out.str(), HasSubstr("denials left out")) << "at the end at the latest";
}

TEST(AuditTest, ACallHasTheIdsThatItsCallerSentWellFormed) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  std::ostringstream out;
  Log log({.format = LogFormat::kText}, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  Audit audit(log);
  const auto denied = [&](const std::string& request_id, const std::string& traceparent) {
    out.str("");
    audit.Denied(SomeCall(request_id, traceparent), "NO_CREDENTIAL");
    return out.str();
  };
  EXPECT_THAT(denied("a=\"b\"", trace),
              EndsWith("principal=anonymous peer=ipv4:10.0.0.1:1 method=/Method reason=NO_CREDENTIAL "
                       "request_id=\"a=\\\"b\\\"\" traceparent=" +
                       trace + "\n"));
  EXPECT_THAT(denied(std::string(129, 'a'), trace + "-"), EndsWith("reason=NO_CREDENTIAL\n"));
  EXPECT_THAT(denied("a\nb", trace), EndsWith("reason=NO_CREDENTIAL traceparent=" + trace + "\n"));
  EXPECT_THAT(denied("", ""), EndsWith("reason=NO_CREDENTIAL\n"));
  out.str("");
  audit.Layer("layer deleted", SomeCall("order-17"), "a", "etag");
  EXPECT_THAT(out.str(), EndsWith("tenant=shared peer=ipv4:10.0.0.1:1 layer=a etag=etag request_id=order-17\n"));
}

TEST(AuditTest, SaysWhoHasOlderFiles) {
  std::ostringstream out;
  Log log({.format = LogFormat::kText}, std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  Audit audit(log);
  audit.DoorIsBehind("TLS files", "no descriptors");
  EXPECT_THAT(out.str(), HasSubstr("TLS files not reloaded at the HTTP door, which has older ones than gRPC"));
  EXPECT_THAT(out.str(), HasSubstr("no descriptors"));
  audit.DoorCaughtUp("TLS files");
  EXPECT_THAT(out.str(), HasSubstr("TLS files reloaded at the HTTP door, which has those of gRPC"));
}

TEST(RolesTest, EachNeedsOneOfItsOwn) {
  for (const char* names : {"compute", "layers", "observe", "compute,layers", "compute,layers,observe", "none"}) {
    EXPECT_EQ(Roles::Parse(names)->Names(), names);
  }
  EXPECT_EQ(Roles::Parse(" observe , compute ")->Names(), "compute,observe");
  for (const char* bad : {"", "all", "compute,", "compute;layers", "none,compute"})
    EXPECT_FALSE(Roles::Parse(bad).ok());
  const Principal reader{.name = "reader", .roles = Roles::Observe()};
  EXPECT_TRUE(Authenticator::Authorize(reader, Roles()).ok());
  EXPECT_TRUE(Authenticator::Authorize(reader, Roles::Observe() | Roles::Layers()).ok());
  const absl::Status denied = Authenticator::Authorize(reader, Roles::Compute() | Roles::Layers());
  EXPECT_TRUE(absl::IsPermissionDenied(denied)) << denied;
  EXPECT_EQ(GetErrorDetails(denied).reason, "MISSING_ROLE");
  EXPECT_EQ(GetErrorDetails(denied).metadata,
            (std::vector<std::pair<std::string, std::string>>{{"role", "compute,layers"}}));
}

TEST(PeerAddressTest, APeerWithoutANameIsNoUnixSocket) {
  EXPECT_EQ(PeerAddress("ipv4:10.0.0.7:40000"), "10.0.0.7");
  EXPECT_EQ(PeerAddress("unix:"), "unix");
  EXPECT_EQ(PeerAddress("unix:/run/attend.sock"), "unix");
  for (const char* unknown : {"", "ipv4", "fd:7"}) EXPECT_EQ(PeerAddress(unknown), "") << unknown;
}

TEST(IsLocalPeerTest, LoopbackAndUnixSocketsAre) {
  for (const char* local :
       {"ipv4:127.0.0.1:1", "ipv4:127.1.2.3:50051", "ipv6:%5B::1%5D:1", "ipv6:[::1]:1", "unix:", "unix:/run/a"}) {
    EXPECT_TRUE(IsLocalPeer(local)) << local;
  }
  for (const char* other : {"ipv4:10.0.0.1:1", "ipv4:12.7.0.1:1", "ipv6:%5B::2%5D:1", "ipv6:%5Bfe80::1%5D:1", "", "x",
                            "ipv6:%5B::ffff:127.0.0.1%5D:1"}) {
    EXPECT_FALSE(IsLocalPeer(other)) << other;
  }
}

TEST(KnownPeersTest, APeerIsItselfOrUnknown) {
  const auto name = [](int port) { return absl::StrCat("ipv4:10.0.0.7:", port); };
  KnownPeers peers;
  for (const std::string& unknown : {std::string(), name(0)}) EXPECT_EQ(peers.Find(unknown), nullptr) << unknown;
  constexpr int kPeers = 1000;
  for (int i = 0; i < kPeers; ++i) {
    peers.Add({.peer = name(i), .principal = std::make_shared<Principal>(Principal{.name = name(i)})});
    ASSERT_NE(peers.Find(name(i)), nullptr);
  }
  int known = 0;
  for (int i = 0; i < 2 * kPeers; ++i) {
    const KnownPeer* const found = peers.Find(name(i));
    if (found == nullptr) continue;
    ++known;
    EXPECT_EQ(found->principal->name, name(i));
  }
  EXPECT_GT(known, 1);
  EXPECT_LE(known, 64) << "it is bounded";
}

// So that one answer serves all calls of a peer.
TEST_F(AuthenticatorTest, APeerWithoutACredentialIsTheSameWhateverFileIsInForce) {
  const auto authenticator = Make(R"({"principals": [{"name": "a", "roles": ["compute"]}]})");
  const auto caller = [&authenticator](const char* peer) {
    const Credentials credentials = *CredentialsOfPeer(peer);
    const PrincipalRef principal = *authenticator->Authenticate(credentials, absl::InfiniteFuture());
    return std::pair(principal, authenticator->AccountOf(*principal, credentials.peer_address, credentials.from_proxy));
  };
  for (const char* peer : {"ipv4:127.0.0.1:1", "ipv4:10.0.0.7:1", "ipv6:%5B2001:db8::1%5D:1", "unix:"}) {
    const auto before = caller(peer);
    folder_.Write("principals.json", R"({"tenants": [{"name": "t"}], "principals": []})");
    EXPECT_TRUE(*authenticator->Reload());
    EXPECT_EQ(caller(peer), before) << peer;
    folder_.Write("principals.json", R"({"principals": [{"name": "a", "tenant": "b", "roles": ["layers"]}]})");
    EXPECT_TRUE(*authenticator->Reload());
    EXPECT_EQ(caller(peer), before) << peer;
  }
  EXPECT_NE(caller("ipv4:127.0.0.1:1").first, caller("ipv4:10.0.0.7:1").first) << "from elsewhere";
  EXPECT_EQ(caller("ipv4:10.0.0.7:1").second, caller("ipv4:10.0.0.7:2").second) << "one address";
}

}  // namespace
}  // namespace attend::server
