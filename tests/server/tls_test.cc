// TLS and mutual TLS with certificates made on the spot, and their renewal without a restart.
#include <gmock/gmock.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/server/engine_fixture.h"
#include "tests/support/server_process.h"
#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kInfo[] = "/attend.v1.AttentionService/GetServerInfo";

// A directory of keys and certificates, each `name.key` and `name.crt`, made by openssl.
class Certificates {
 public:
  Certificates() {
    char path[] = "/tmp/attend-tls-test-XXXXXX";
    directory_ = mkdtemp(path);
  }
  ~Certificates() { std::filesystem::remove_all(directory_); }

  std::string key(const std::string& name) const { return directory_ + "/" + name + ".key"; }
  std::string certificate(const std::string& name) const { return directory_ + "/" + name + ".crt"; }

  void MakeAuthority(const std::string& name) {
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=" + name + " -keyout " +
        key(name) + " -out " + certificate(name));
  }

  // For `localhost`, signed by `authority`.
  void MakeLeaf(const std::string& name, const std::string& authority) {
    const std::string request = directory_ + "/" + name + ".csr";
    const std::string extensions = directory_ + "/" + name + ".ext";
    Run("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name + " -keyout " + key(name) +
        " -out " + request);
    std::system(("echo subjectAltName=DNS:localhost > " + extensions).c_str());
    Run("x509 -req -days 2 -in " + request + " -CA " + certificate(authority) + " -CAkey " + key(authority) +
        " -CAcreateserial -extfile " + extensions + " -out " + certificate(name));
  }

 private:
  void Run(const std::string& arguments) {
    ASSERT_EQ(std::system(("openssl " + arguments + " >/dev/null 2>&1").c_str()), 0) << arguments;
  }

  std::string directory_;
};

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    gpr_set_log_function([](gpr_log_func_args*) {});  // Each refused handshake would be a line.
    certificates_.MakeAuthority("authority");
    certificates_.MakeAuthority("stranger");
    certificates_.MakeLeaf("server", "authority");
  }

  server::ServerConfig Config() const {
    server::ServerConfig config = TestConfig();
    config.log_level = "off";  // Refused handshakes are what these tests are about.
    config.tls.certificate_path = certificates_.certificate("server");
    config.tls.key_path = certificates_.key("server");
    config.tls.refresh_interval = absl::Seconds(1);
    return config;
  }

  // Whether a client that trusts `authority`, and shows the certificate of `identity` if given, is served.
  bool IsServed(const TestServer& server, const std::string& authority, const std::string& identity = "") const {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadFile(certificates_.certificate(authority));
    if (!identity.empty()) {
      options.pem_private_key = ReadFile(certificates_.key(identity));
      options.pem_cert_chain = ReadFile(certificates_.certificate(identity));
    }
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("localhost");
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel = grpc::CreateCustomChannel(server.address(), grpc::SslCredentials(options), arguments);
    return CallRaw(channel, kInfo, "").status.ok();
  }

  Certificates certificates_;
};

TEST_F(TlsTest, OnlyClientsThatTrustTheAuthorityAreServed) {
  TestServer server(Config());
  EXPECT_TRUE(IsServed(server, "authority"));
  EXPECT_FALSE(IsServed(server, "stranger"));
  EXPECT_FALSE(CallRaw(server.channel(), kInfo, "").status.ok()) << "a plaintext client was served";
}

TEST_F(TlsTest, MutualTlsServesOnlyCertificatesOfTheClientAuthority) {
  certificates_.MakeLeaf("friend", "authority");
  certificates_.MakeLeaf("foe", "stranger");
  server::ServerConfig config = Config();
  config.tls.client_ca_path = certificates_.certificate("authority");
  TestServer server(config);
  EXPECT_TRUE(IsServed(server, "authority", "friend"));
  EXPECT_FALSE(IsServed(server, "authority", "foe"));
  EXPECT_FALSE(IsServed(server, "authority"));
}

TEST_F(TlsTest, RenewedCertificatesAreUsedWithoutARestart) {
  TestServer server(Config());
  ASSERT_FALSE(IsServed(server, "stranger"));
  certificates_.MakeLeaf("server", "stranger");
  EXPECT_TRUE(WaitFor([&] {
    absl::SleepFor(absl::Milliseconds(50));
    return IsServed(server, "stranger");
  }));
  EXPECT_FALSE(IsServed(server, "authority"));
}

TEST_F(TlsTest, AFileThatCannotBeReadIsAnErrorThatNamesItsFlag) {
  server::Log log({.format = server::LogFormat::kText, .level = server::ParseLogLevel("off")});
  const std::string missing = "/no/such/file.pem";
  for (const char* flag : {"--tls-cert", "--tls-key", "--tls-client-ca"}) {
    server::ServerConfig config = Config();
    config.tls.client_ca_path = certificates_.certificate("authority");
    std::string& path = flag == std::string("--tls-cert")  ? config.tls.certificate_path
                        : flag == std::string("--tls-key") ? config.tls.key_path
                                                           : config.tls.client_ca_path;
    path = missing;
    const auto server = server::AttentionServer::Start(config, log);
    ASSERT_FALSE(server.ok()) << flag;
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(flag));
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(missing));
  }
}

}  // namespace
}  // namespace attend::testing
