#include "client/cli/connection/connection_flags.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "formats/files/tls_files.h"

namespace attend::client {
namespace {

// What the files hold, or why no handshake with them could succeed.
absl::StatusOr<TlsOptions> ReadTlsFiles(const ConnectionFlags& flags) {
  TlsOptions tls{.server_name = flags.tls_server_name};
  if (!flags.tls_ca.empty()) {
    absl::StatusOr<PemFile> authorities = ReadPemFile("--tls-ca", flags.tls_ca);
    if (!authorities.ok()) return authorities.status();
    if (absl::Status usable = CheckAuthorities(*authorities); !usable.ok()) return usable;
    tls.ca_certificates = std::move(authorities->contents);
  }
  if (flags.tls_cert.empty()) return tls;
  absl::StatusOr<PemFile> chain = ReadPemFile("--tls-cert", flags.tls_cert);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<PemFile> key = ReadPemFile("--tls-key", flags.tls_key);
  if (!key.ok()) return key.status();
  if (absl::Status usable = CheckIdentity(*chain, *key); !usable.ok()) return usable;
  tls.client_certificate = std::move(chain->contents);
  tls.client_key = std::move(key->contents);
  return tls;
}

}  // namespace

void AddConnectionFlags(CLI::App* app, ConnectionFlags* flags) {
  const auto add = [app](const char* flag, auto& value, const char* variable, const char* help) {
    return app->add_option(flag, value, help)->envname(variable)->group(kConnectionGroup);
  };
  add("--endpoints", flags->endpoints, "ATTEND_ENDPOINTS",
      "Servers, as host:port[,host:port...]; calls go round all of them")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  add("--timeout", flags->timeout, "ATTEND_TIMEOUT", "Deadline of each call, as in 500ms, 30s or 2m")
      ->check([](const std::string& text) { return std::string(ParseTimeout(text).status().message()); })
      ->capture_default_str();
  app->add_flag("--tls", flags->tls, "Encrypt, trusting this system's certificate authorities")
      ->envname("ATTEND_TLS")
      ->group(kConnectionGroup);
  add("--tls-ca", flags->tls_ca, "ATTEND_TLS_CA", "Encrypt, trusting the authorities in this PEM file");
  CLI::Option* const cert =
      add("--tls-cert", flags->tls_cert, "ATTEND_CLIENT_TLS_CERT", "This client's certificate chain (PEM file)");
  CLI::Option* const key =
      add("--tls-key", flags->tls_key, "ATTEND_CLIENT_TLS_KEY", "The certificate's private key (PEM file)");
  cert->needs(key);
  key->needs(cert);
  add("--tls-server-name", flags->tls_server_name, "ATTEND_TLS_SERVER_NAME",
      "Name in the server's certificate, when it is not the first endpoint's host");
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

absl::StatusOr<std::optional<TlsOptions>> TlsOf(const ConnectionFlags& flags) {
  if (!flags.uses_tls()) return std::optional<TlsOptions>();
  absl::StatusOr<TlsOptions> tls = ReadTlsFiles(flags);
  if (!tls.ok()) return tls.status();
  return std::optional<TlsOptions>(*std::move(tls));
}

absl::StatusOr<Client> ConnectWith(const ConnectionFlags& flags) {
  absl::StatusOr<std::optional<TlsOptions>> tls = TlsOf(flags);
  if (!tls.ok()) return tls.status();
  return Client::Connect({.endpoints = flags.endpoints, .tls = *std::move(tls)});
}

}  // namespace attend::client
