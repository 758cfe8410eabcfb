#include "client/cli/common_flags.h"

#include <cstdint>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr std::int64_t kMaxPemBytes = std::int64_t{1} << 20;

absl::Status ReadPem(const std::string& path, std::string* contents) {
  if (path.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> read = ReadSmallFile(path, kMaxPemBytes);
  if (!read.ok()) return read.status();
  *contents = *std::move(read);
  return absl::OkStatus();
}

}  // namespace

void AddCommonFlags(CLI::App* app, CommonFlags* flags) {
  app->add_option("--endpoints", flags->endpoints, "Servers, as host:port[,host:port...]; calls go round all of them")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->envname("ATTEND_ENDPOINTS")
      ->group(kConnectionGroup);
  app->add_option("--timeout", flags->timeout, "Deadline of each call, as in 500ms, 30s or 2m")
      ->check([](const std::string& text) { return std::string(ParseTimeout(text).status().message()); })
      ->capture_default_str()
      ->envname("ATTEND_TIMEOUT")
      ->group(kConnectionGroup);
  app->add_flag("--tls", flags->tls, "Encrypt, trusting this system's certificate authorities")
      ->envname("ATTEND_TLS")
      ->group(kConnectionGroup);
  app->add_option("--tls-ca", flags->tls_ca, "Encrypt, trusting the authorities in this PEM file")
      ->envname("ATTEND_TLS_CA")
      ->group(kConnectionGroup);
  CLI::Option* cert = app->add_option("--tls-cert", flags->tls_cert, "This client's certificate chain (PEM file)")
                          ->envname("ATTEND_CLIENT_TLS_CERT")
                          ->group(kConnectionGroup);
  CLI::Option* key = app->add_option("--tls-key", flags->tls_key, "The certificate's private key (PEM file)")
                         ->envname("ATTEND_CLIENT_TLS_KEY")
                         ->group(kConnectionGroup);
  cert->needs(key);
  key->needs(cert);
  app->add_option("--tls-server-name", flags->tls_server_name,
                  "Name in the server's certificate, when it is not the first endpoint's host")
      ->envname("ATTEND_TLS_SERVER_NAME")
      ->group(kConnectionGroup);
}

absl::StatusOr<absl::Duration> ParseTimeout(const std::string& text) {
  absl::Duration timeout;
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    timeout = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &timeout)) {
    timeout = absl::ZeroDuration();
  }
  if (timeout > absl::ZeroDuration() && timeout < absl::InfiniteDuration()) return timeout;
  return absl::InvalidArgumentError(
      absl::StrCat("the timeout '", text, "' is not a positive duration such as 500ms, 30s or 2m"));
}

absl::StatusOr<Client> ConnectWith(const CommonFlags& flags) {
  ClientOptions options{.endpoints = flags.endpoints};
  if (flags.tls || !flags.tls_ca.empty() || !flags.tls_cert.empty() || !flags.tls_server_name.empty()) {
    TlsOptions tls{.server_name = flags.tls_server_name};
    absl::Status status = ReadPem(flags.tls_ca, &tls.ca_certificates);
    status.Update(ReadPem(flags.tls_cert, &tls.client_certificate));
    status.Update(ReadPem(flags.tls_key, &tls.client_key));
    if (!status.ok()) return status;
    options.tls = std::move(tls);
  }
  return Client::Connect(options);
}

}  // namespace attend::client
