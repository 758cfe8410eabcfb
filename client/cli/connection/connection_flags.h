// The flags that say where servers are and how to talk to them: the same for every subcommand, before or after its
// name.
#ifndef ATTEND_CLIENT_CLI_CONNECTION_CONNECTION_FLAGS_H_
#define ATTEND_CLIENT_CLI_CONNECTION_CONNECTION_FLAGS_H_

#include <CLI/App.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/lib/client.h"

namespace attend::client {

struct ConnectionFlags {
  std::vector<std::string> endpoints = {"127.0.0.1:50051"};
  std::string timeout = "30s";
  bool tls = false;    // Implied by the ones below.
  std::string tls_ca;  // Path of a PEM file, as the next two.
  std::string tls_cert;
  std::string tls_key;
  std::string tls_server_name;
  std::string token_file;
  std::string token;      // Of the environment: no flag, because whoever lists processes reads flags.
  bool insecure = false;  // Whether the token may go to other machines in plaintext.

  bool uses_tls() const { return tls || !tls_ca.empty() || !tls_cert.empty() || !tls_server_name.empty(); }
};

// The heading of these flags in the help.
inline constexpr char kConnectionGroup[] = "Connection";

// Declares the flags on the command as a whole; they are read into `flags`, which must outlive parsing. Each also reads
// its environment variable (`--tls-ca` reads ATTEND_TLS_CA). The client's own certificate and key, and --insecure, read
// ATTEND_CLIENT_TLS_CERT, ATTEND_CLIENT_TLS_KEY and ATTEND_CLIENT_INSECURE: without CLIENT, these are the server's, and
// a container may hold both. ATTEND_TOKEN holds a token itself; a file goes before it.
void AddConnectionFlags(CLI::App* app, ConnectionFlags* flags);

// `30s`, `500ms`, `1m30s`, or a number of seconds. Errors: INVALID_ARGUMENT unless positive and finite.
absl::StatusOr<absl::Duration> ParseTimeout(const std::string& text);

// The credentials that `flags` name, or none for plaintext. Errors: INVALID_ARGUMENT naming the flag and the file with
// which no handshake could succeed.
absl::StatusOr<std::optional<TlsOptions>> TlsOf(const ConnectionFlags& flags);

// A client for the servers that `flags` name. Errors: as Client::Connect and TlsOf; INVALID_ARGUMENT, naming flag or
// variable, for a token that cannot be read or may not be sent; NOT_FOUND when its file cannot be opened.
absl::StatusOr<Client> ConnectWith(const ConnectionFlags& flags);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_CONNECTION_CONNECTION_FLAGS_H_
