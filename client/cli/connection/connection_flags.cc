#include "client/cli/connection/connection_flags.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/io/stream.h"
#include "client/lib/bearer_token.h"
#include "client/lib/channel.h"
#include "formats/files/tls_files.h"

namespace attend::client {
namespace {

constexpr char kTokenVariable[] = "ATTEND_TOKEN";
constexpr std::int64_t kMaxTokenBytes = 8192;  // A server takes 16 KiB of metadata by default.

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

// Empty for none. Blanks around the token are not part of it: editors and `echo` end a file with a line break.
absl::StatusOr<std::string> ReadToken(const ConnectionFlags& flags) {
  const bool from_file = !flags.token_file.empty();
  absl::StatusOr<std::string> token = from_file ? ReadSmallFile(flags.token_file, kMaxTokenBytes) : flags.token;
  if (!token.ok()) return Annotate("--token-file", token.status());
  absl::StripAsciiWhitespace(&*token);
  const std::string source = from_file ? absl::StrCat("--token-file: ", flags.token_file) : kTokenVariable;
  if (from_file && token->empty()) return absl::InvalidArgumentError(absl::StrCat(source, " holds no token"));
  if (absl::Status usable = CheckToken(*token); !usable.ok()) return Annotate(source, usable);
  return token;
}

// What Client::Connect would say, in terms of flags.
absl::Status CheckTokenStaysSecret(const ConnectionFlags& flags, const std::string& token) {
  if (token.empty() || flags.uses_tls() || flags.insecure) return absl::OkStatus();
  const absl::StatusOr<Target> target = ResolveTarget(flags.endpoints);
  if (!target.ok()) return target.status();
  if (IsLocal(*target)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the token is not sent in plaintext to ", absl::StrJoin(flags.endpoints, ","),
      ", which may be another machine; give --tls or --tls-ca FILE, or --insecure in a network that you trust"));
}

}  // namespace

void AddConnectionFlags(CLI::App* app, ConnectionFlags* flags) {
  const auto add = [app](const char* flag, auto& value, const char* variable, const char* help) {
    return app->add_option(flag, value, help)->envname(variable)->group(kConnectionGroup);
  };
  add("--endpoints", flags->endpoints, "ATTEND_ENDPOINTS",
      "Servers, as host[:port][,host[:port]...], port 50051 where none is given; calls go round all of them")
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
  add("--token-file", flags->token_file, "ATTEND_TOKEN_FILE",
      "A file with the bearer token that says who calls; ATTEND_TOKEN may hold the token itself");
  app->add_flag("--insecure", flags->insecure,
                "Send the token to other machines in plaintext too, in a network that you trust")
      ->envname("ATTEND_CLIENT_INSECURE")
      ->group(kConnectionGroup);
  if (const char* const token = std::getenv(kTokenVariable); token != nullptr) flags->token = token;
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
  absl::StatusOr<std::string> token = ReadToken(flags);
  if (!token.ok()) return token.status();
  if (absl::Status may = CheckTokenStaysSecret(flags, *token); !may.ok()) return may;
  return Client::Connect(
      {.endpoints = flags.endpoints, .tls = *std::move(tls), .token = *std::move(token), .insecure = flags.insecure});
}

}  // namespace attend::client
