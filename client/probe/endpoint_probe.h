// Looks at one address after a call could not reach a server there: what answers, if anything does?
//
// gRPC 1.51 reports the last address it tried and little of why. A probe makes connections of its own, each with a time
// bound, and speaks the first bytes of HTTP/2, plaintext or in TLS; no call is made.
#ifndef ATTEND_CLIENT_PROBE_ENDPOINT_PROBE_H_
#define ATTEND_CLIENT_PROBE_ENDPOINT_PROBE_H_

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace attend::client {

// From what tells least to what tells most: of several addresses behind one name, the last of these is reported.
enum class Finding : std::uint8_t {
  kNoWay,        // This machine has no way to such addresses, as without IPv6: `detail` is the system's reason.
  kRefused,      // Nothing listens there.
  kUnreachable,  // No permission, no response or no descriptor: `detail` is the system's reason.
  kSilent,       // The connection is made, and nothing comes.
  kClosed,       // The connection is made and closed without a word.
  kForeign,      // Something else than HTTP/2 or TLS answers.
  kHttp1,
  kNoHttp2,                   // TLS, but without HTTP/2.
  kPlaintextServer,           // HTTP/2 in plaintext, while the client would speak TLS.
  kTlsServer,                 // TLS, while the client would speak plaintext.
  kUntrusted,                 // The server's certificate does not verify: `detail` is OpenSSL's reason.
  kExpired,                   // Of the server's certificate.
  kOtherName,                 // The server's certificate is for other names: `detail` lists them.
  kClientCertificateMissing,  // The server demands one.
  kClientCertificateRefused,
  kWorks,  // A server is there that speaks HTTP/2 as the client does.
};

struct ProbeResult {
  Finding finding = Finding::kRefused;
  std::string detail = {};
};

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;
};

// How the client would speak TLS. Paths of PEM files whose contents are known to be usable; empty: this system's
// authorities, no certificate.
struct ProbeTls {
  bool encrypted = false;
  std::string ca = {};
  std::string cert = {};
  std::string key = {};
};

// Takes at most about until `deadline`. `server_name` is what the server's certificate must carry. May be called
// concurrently.
ProbeResult Probe(const SocketAddress& address, const ProbeTls& tls, const std::string& server_name,
                  absl::Time deadline);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_PROBE_ENDPOINT_PROBE_H_
