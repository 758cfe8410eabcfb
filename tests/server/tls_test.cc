// TLS and mutual TLS with certificates made on the spot, and their renewal without a restart.
#include <gmock/gmock.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/start_settings.h"
#include "server/config/tls_pair.h"
#include "server/http/http_tls.h"
#include "server/tls_reload.h"
#include "tests/server/engine_fixture.h"
#include "tests/support/server_process.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_server.h"

namespace attend::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kInfo[] = "/attend.v1.AttentionService/GetServerInfo";

// A directory of keys and certificates, each `name.key` and `name.crt`, made by openssl.
class Certificates {
 public:
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

  // Signed by itself, in force from `begin` to `end` seconds from now, which openssl's commands do not let one say.
  std::string MakeDated(const std::string& name, int begin, int end) {
    MakeAuthority(name);
    std::FILE* file = std::fopen(key(name).c_str(), "r");
    EVP_PKEY* own = PEM_read_PrivateKey(file, nullptr, nullptr, nullptr);
    std::fclose(file);
    file = std::fopen(certificate(name).c_str(), "r");
    X509* dated = PEM_read_X509(file, nullptr, nullptr, nullptr);
    std::fclose(file);
    X509_gmtime_adj(X509_getm_notBefore(dated), begin);
    X509_gmtime_adj(X509_getm_notAfter(dated), end);
    EXPECT_GT(X509_sign(dated, own, EVP_sha256()), 0);
    file = std::fopen(certificate(name).c_str(), "w");
    PEM_write_X509(file, dated);
    std::fclose(file);
    X509_free(dated);
    EVP_PKEY_free(own);
    return certificate(name);
  }

 private:
  void Run(const std::string& arguments) {
    ASSERT_EQ(std::system(("openssl " + arguments + " >/dev/null 2>&1").c_str()), 0) << arguments;
  }

  const TemporaryFolder folder_;
  const std::string directory_ = folder_.path();
};

TEST(TlsReloadTest, ADoorThatFailedIsAskedAgain) {
  bool changed = true;
  absl::Status door = absl::ResourceExhaustedError("no descriptors");
  int asked = 0;
  server::TlsReload reload([&changed] { return absl::StatusOr<bool>(std::exchange(changed, false)); },
                           [&] {
                             ++asked;
                             return door;
                           });
  EXPECT_FALSE(reload.door_is_behind());
  EXPECT_EQ(reload.Run().status(), door);
  EXPECT_TRUE(reload.door_is_behind()) << "gRPC has the new ones";
  EXPECT_EQ(reload.Run().status(), door) << "the files have not changed since, and it still has the old ones";
  door = absl::OkStatus();
  const absl::StatusOr<bool> taken = reload.Run();
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_TRUE(*taken);
  EXPECT_FALSE(reload.door_is_behind());
  EXPECT_FALSE(*reload.Run());
  EXPECT_EQ(asked, 3);
}

TEST(TlsReloadTest, FilesThatAreWrongAreNamedAlsoWhileTheDoorIsBehind) {
  absl::StatusOr<bool> files = true;
  server::TlsReload reload([&files] { return files; }, [] { return absl::ResourceExhaustedError("no descriptors"); });
  ASSERT_FALSE(reload.Run().ok());
  files = absl::InvalidArgumentError("another key");
  const absl::Status both = reload.Run().status();
  EXPECT_THAT(std::string(both.message()), AllOf(HasSubstr("another key"), HasSubstr("no descriptors")));
  EXPECT_TRUE(reload.door_is_behind());
}

TEST(TlsReloadTest, TheDoorTakesWhatIsInForceAlsoWhenTheFilesAreWrong) {
  absl::StatusOr<bool> files = true;
  absl::Status door = absl::ResourceExhaustedError("no descriptors");
  server::TlsReload reload([&files] { return files; }, [&door] { return door; });
  ASSERT_FALSE(reload.Run().ok());
  files = absl::InvalidArgumentError("another key");
  door = absl::OkStatus();
  EXPECT_EQ(reload.Run().status(), files.status());
  EXPECT_FALSE(reload.door_is_behind());
}

TEST(TlsReloadTest, FilesThatAreWrongLeaveBothWithTheLast) {
  server::TlsReload reload([] { return absl::StatusOr<bool>(absl::InvalidArgumentError("another key")); },
                           [] { return absl::OkStatus(); });
  EXPECT_FALSE(reload.Run().ok());
  EXPECT_FALSE(reload.door_is_behind());
}

TEST(HttpTlsDeathTest, WithoutTlsInOpenSslTheDoorIsRefused) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // A child in which OpenSSL has done nothing yet.
  const auto load = [] {
    OSSL_PROVIDER_load(nullptr, "null");  // In place of the one that encrypts.
    const auto tls = server::HttpTls::Load("identity.pem", "");
    std::cerr << tls.status() << std::endl;
    std::_Exit(absl::IsInternal(tls.status()) ? 0 : 1);
  };
  EXPECT_EXIT(load(), ::testing::ExitedWithCode(0), "OpenSSL can make no TLS connections: ");
}

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

TEST_F(TlsTest, FilesThatDoNotFitKeepTheLastGoodPairInForce) {
  TestServer server(Config());
  ASSERT_TRUE(IsServed(server, "authority"));
  certificates_.MakeLeaf("other", "stranger");
  const std::string certificate = certificates_.certificate("server"), key = certificates_.key("server");
  const struct {
    std::string path;
    std::string contents;
  } cases[] = {
      {certificate, ReadFile(certificates_.certificate("other"))},  // The key does not fit it.
      {certificate, "garbage"},
      {key, ""},
      {key, ReadFile(certificates_.key("other"))},
  };
  for (const auto& [path, contents] : cases) {
    const std::string good = ReadFile(path);
    std::ofstream(path) << contents;
    // Long enough for the server to look at it, and for gRPC to look at what it is given.
    for (int i = 0; i < 25; ++i) {
      absl::SleepFor(absl::Milliseconds(100));
      ASSERT_TRUE(IsServed(server, "authority")) << path << " " << contents.substr(0, 30);
    }
    std::ofstream(path) << good;
  }
  std::remove(certificate.c_str());
  absl::SleepFor(absl::Seconds(2));
  EXPECT_TRUE(IsServed(server, "authority")) << "the certificate is missing";
}

TEST_F(TlsTest, NoHandshakeFailsWhileACertificateIsRenewed) {
  TestServer server(Config());
  certificates_.MakeLeaf("next", "authority");
  const std::string old_certificate = ReadFile(certificates_.certificate("server"));
  const std::string old_key = ReadFile(certificates_.key("server"));
  for (int round = 0; round < 3; ++round) {
    const bool renew = round % 2 == 0;
    // Not at once: for a moment the two do not fit.
    std::ofstream(certificates_.certificate("server"))
        << (renew ? ReadFile(certificates_.certificate("next")) : old_certificate);
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(IsServed(server, "authority")) << round << " " << i;
    std::ofstream(certificates_.key("server")) << (renew ? ReadFile(certificates_.key("next")) : old_key);
    const absl::Time end = absl::Now() + absl::Seconds(3);
    while (absl::Now() < end) ASSERT_TRUE(IsServed(server, "authority")) << round;
  }
}

TEST(StagedFileTest, ReadersSeeTheOldContentsOrTheNewOnesAndALaterTime) {
  server::StagedFile file;
  ASSERT_TRUE(file.Replace("first").ok());
  const std::string path = file.path();
  struct stat before {
  }, after{};
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  ASSERT_TRUE(file.Replace("second, longer").ok());
  ASSERT_TRUE(file.Replace("third").ok());
  ASSERT_EQ(stat(path.c_str(), &after), 0);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(ReadFile(path), "third");
  EXPECT_GE(after.st_mtime, before.st_mtime + 2) << "gRPC compares whole seconds";
}

TEST_F(TlsTest, TheExpiryIsThatOfTheFilesAsTheyWereLastLookedAt) {
  const std::string certificate = certificates_.MakeDated("dated", -10, 1000);
  const auto pair = *server::TlsPair::Load({.certificate_path = certificate, .key_path = certificates_.key("dated")});
  const std::int64_t expiry = pair->Expiry();
  EXPECT_NEAR(static_cast<double>(expiry), static_cast<double>(absl::ToUnixSeconds(absl::Now()) + 1000), 60);
  std::ofstream(certificate) << "no certificate";
  EXPECT_EQ(pair->Expiry(), expiry) << "who asks looks at no file";
  EXPECT_FALSE(pair->Reload().ok());
  EXPECT_EQ(pair->Expiry(), 0);
  certificates_.MakeDated("dated", -10, 5000);
  EXPECT_TRUE(*pair->Reload());
  EXPECT_GT(pair->Expiry(), expiry + 3000);
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

// Files with which no handshake could succeed; what the start says of them, --check-config says too.
class TlsFilesTest : public TlsTest {
 protected:
  // Why a server with these files does not start; empty when it would.
  std::string Refusal(const std::string& certificate, const std::string& key, const std::string& client_ca = "") const {
    server::ServerConfig config = Config();
    config.tls.certificate_path = certificate;
    config.tls.key_path = key;
    config.tls.client_ca_path = client_ca;
    return std::string(server::ResolveStartSettings(config).status().message());
  }
  std::string Refusal(const std::string& certificate) const {
    return Refusal(certificate, certificates_.key("server"));
  }
  std::string Write(const std::string& name, const std::string& contents) const { return files_.Write(name, contents); }
  std::string Certificate(const std::string& name) const { return ReadFile(certificates_.certificate(name)); }

  const TemporaryFolder files_;
};

TEST_F(TlsFilesTest, APairIsServed) {
  EXPECT_EQ(Refusal(certificates_.certificate("server")), "");
  const std::string chain = Write("chain.pem", Certificate("server") + Certificate("authority"));
  EXPECT_EQ(Refusal(chain, certificates_.key("server"), certificates_.certificate("authority")), "");
  const std::string both = Write("both.pem", ReadFile(certificates_.key("server")) + Certificate("server"));
  EXPECT_EQ(Refusal(both, both), "") << "certificate and key in one file";
}

TEST_F(TlsFilesTest, AKeyOfAnotherCertificateIsRefused) {
  const std::string key = certificates_.key("stranger"), certificate = certificates_.certificate("server");
  EXPECT_EQ(Refusal(certificate, key), "--tls-key: '" + key +
                                           "' is not the private key of the certificate in --tls-cert: '" +
                                           certificate + "'; give the pair that was made together");
}

TEST_F(TlsFilesTest, AnEncryptedKeyIsRefused) {
  for (const char* form : {"pkcs8 -topk8 -v2 aes128", "ec -aes128"}) {
    const std::string key = files_.path() + "/encrypted.key";
    ASSERT_EQ(std::system(absl::StrCat("openssl ", form, " -passout pass:abcd -in ", certificates_.key("server"),
                                       " -out ", key, " 2>/dev/null")
                              .c_str()),
              0);
    EXPECT_THAT(Refusal(certificates_.certificate("server"), key), HasSubstr("--tls-key: '" + key + "' is encrypted"));
  }
}

TEST_F(TlsFilesTest, ExchangedFilesAreSaidSo) {
  const std::string key = certificates_.key("server"), certificate = certificates_.certificate("server");
  EXPECT_EQ(
      Refusal(key, certificate),
      "--tls-cert: '" + key + "' holds a private key and no certificate; are --tls-cert and --tls-key exchanged?");
  EXPECT_EQ(Refusal(certificate, certificate),
            "--tls-key: '" + certificate +
                "' holds a certificate and no private key; are --tls-cert and --tls-key exchanged?");
}

TEST_F(TlsFilesTest, FilesWithoutWhatTheyShouldHoldAreRefused) {
  const std::string damaged = Certificate("server").replace(100, 8, "********");
  const struct {
    std::string contents;
    std::string needle;
  } cases[] = {
      {"", "is empty"},
      {"garbage", "is not a PEM file"},
      {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"},
      {damaged, "is damaged"},
      {Certificate("server") + damaged, "is damaged"},
      {Certificate("server").substr(0, 200), "is damaged"},
      {std::string((1 << 20) + 1, 'x'), "is larger than 1 MiB"},
  };
  for (const auto& [contents, needle] : cases) {
    const std::string file = Write("file.pem", contents);
    EXPECT_THAT(Refusal(file), HasSubstr("--tls-cert: '" + file + "' " + needle)) << contents.substr(0, 100);
  }
  EXPECT_THAT(Refusal(files_.path()), HasSubstr("is a directory"));
}

TEST_F(TlsFilesTest, AChainStartsWithTheOwnersCertificate) {
  const std::string chain = Write("chain.pem", Certificate("authority") + Certificate("server"));
  EXPECT_THAT(Refusal(chain), HasSubstr("--tls-cert: '" + chain + "' starts with the certificate of an issuer"));
  EXPECT_THAT(Refusal(chain), HasSubstr("is number 2"));
}

TEST_F(TlsFilesTest, AClientAuthorityIsACertificate) {
  const std::string key = certificates_.key("authority"), certificate = certificates_.certificate("server");
  const std::string request =
      Write("request.pem", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
  EXPECT_THAT(Refusal(certificate, certificates_.key("server"), key),
              HasSubstr("--tls-client-ca: '" + key + "' holds a private key and no certificate"));
  EXPECT_THAT(Refusal(certificate, certificates_.key("server"), request),
              HasSubstr("--tls-client-ca: '" + request + "' holds no certificate"));
}

TEST_F(TlsFilesTest, ACertificateOutOfItsTimeIsRefused) {
  const std::string expired = certificates_.MakeDated("expired", -7200, -3600);
  EXPECT_THAT(Refusal(expired, certificates_.key("expired")), HasSubstr("--tls-cert: '" + expired + "' expired on "));
  const std::string early = certificates_.MakeDated("early", 3600, 7200);
  EXPECT_THAT(Refusal(early, certificates_.key("early")), HasSubstr("still to come"));
  const std::string server = certificates_.certificate("server"), key = certificates_.key("server");
  EXPECT_THAT(Refusal(server, key, expired), HasSubstr("--tls-client-ca: '" + expired + "' expired on "));
  const std::string bundle = Write("bundle.pem", Certificate("expired") + Certificate("authority"));
  EXPECT_EQ(Refusal(server, key, bundle), "") << "one authority in force is enough";
}

TEST_F(TlsFilesTest, AKeyThatOpenSslThinksTooShortIsRefused) {
  const std::string key = files_.path() + "/short.key", certificate = files_.path() + "/short.crt";
  ASSERT_EQ(std::system(absl::StrCat("openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=short -keyout ", key,
                                     " -out ", certificate, " 2>/dev/null")
                            .c_str()),
            0);
  EXPECT_THAT(Refusal(certificate, key), HasSubstr("is refused by OpenSSL: ee key too small"));
}

}  // namespace
}  // namespace attend::testing
