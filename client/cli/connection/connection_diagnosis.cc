#include "client/cli/connection/connection_diagnosis.h"

#include <netdb.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/strings/substitute.h"
#include "absl/time/clock.h"
#include "client/lib/channel.h"
#include "client/probe/endpoint_probe.h"

namespace attend::client {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(4);
constexpr std::size_t kMaxAddresses = 8;  // Of one name.
constexpr char kChoose[] = "name the right address with --endpoints";

struct Context {
  const ConnectionFlags& flags;
  const ProbeTls tls;
  const std::string server_name;  // That certificates must carry; empty: the endpoint's host.
  const absl::Time deadline;
};

// What to say of a finding: $0 is the endpoint, $1 the finding's detail, $2 the name that the certificate must carry,
// $3 where the client's trust comes from, $4 its certificate, $5 kChoose.
const char* Template(Finding finding) {
  switch (finding) {
    case Finding::kRefused: return "nothing listens on $0; start attend-server --listen $0, or $5";
    case Finding::kNoWay:
    case Finding::kUnreachable: return "$0 cannot be reached ($1); check the address and firewalls, or $5";
    case Finding::kSilent:
      return "$0 takes connections and says nothing, so it is no attend-server, or one that hangs; $5";
    case Finding::kClosed: return "$0 takes connections and closes them, so it is no attend-server; $5";
    case Finding::kForeign: return "$0 speaks a protocol that is not gRPC; $5";
    case Finding::kHttp1: return "$0 speaks HTTP/1, so it is another service and no attend-server; $5";
    case Finding::kNoHttp2: return "$0 speaks TLS without HTTP/2, so it is no attend-server; $5";
    case Finding::kPlaintextServer:
      return "$0 speaks plaintext, not TLS; leave out --tls, --tls-ca, --tls-cert, --tls-key and --tls-server-name, or "
             "start attend-server with --tls-cert and --tls-key";
    case Finding::kTlsServer:
      return "the server at $0 speaks TLS; add --tls-ca FILE with the authority of its certificate, or --tls when this "
             "system trusts it";
    case Finding::kUntrusted: return "the certificate of $0 is not from $3 ($1)";
    case Finding::kExpired: return "the certificate of $0 has expired; the server's operator has to renew it";
    case Finding::kOtherName:
      return "the certificate of $0 is not for '$2' but for $1; use that name in --endpoints, or give it with "
             "--tls-server-name";
    case Finding::kClientCertificateMissing:
      return "the server at $0 demands a client certificate; add --tls-cert FILE and --tls-key FILE";
    case Finding::kClientCertificateRefused:
      return "the server at $0 refuses the client certificate $4; give one from an authority in its --tls-client-ca";
    case Finding::kWorks: break;
  }
  return "";
}

std::string Sentence(const std::string& endpoint, const std::string& name, const ProbeResult& result,
                     const ConnectionFlags& flags) {
  const std::string trust = flags.tls_ca.empty()
                                ? "an authority that this system trusts; give its authority with --tls-ca FILE"
                                : absl::StrCat("an authority in ", flags.tls_ca, "; give its authority with --tls-ca");
  return absl::Substitute(Template(result.finding), endpoint, result.detail, name, trust, flags.tls_cert, kChoose);
}

std::string SocketSentence(const std::string& path, const ProbeResult& result) {
  struct stat entry {};
  const std::string start = absl::StrCat("start attend-server --listen unix:", path, ", or ", kChoose);
  if (stat(path.c_str(), &entry) != 0)
    return absl::StrCat("there is no socket ", path, ": ", std::strerror(errno), "; ", start);
  if (!S_ISSOCK(entry.st_mode)) return absl::StrCat(path, " is not a socket; ", kChoose);
  return absl::StrCat("no server listens on the socket ", path, " (", result.detail, "); ", start);
}

std::string DiagnoseSocket(const std::string& path, const Context& context) {
  sockaddr_un unix_address{.sun_family = AF_UNIX};
  if (path.size() >= sizeof unix_address.sun_path) return absl::StrCat("the path of the socket ", path, " is too long");
  path.copy(unix_address.sun_path, path.size());
  SocketAddress address{.size = sizeof unix_address};
  std::memcpy(&address.storage, &unix_address, sizeof unix_address);
  const std::string name = context.flags.tls_server_name.empty() ? "localhost" : context.flags.tls_server_name;
  const ProbeResult result = Probe(address, context.tls, name, context.deadline);
  if (result.finding == Finding::kRefused) return SocketSentence(path, result);
  return Sentence(absl::StrCat("unix:", path), name, result, context.flags);
}

std::string DiagnoseHost(const std::string& endpoint, const Context& context) {
  const std::size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos) return "";
  std::string host = endpoint.substr(0, colon);
  const std::string port = endpoint.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &list); error != 0) {
    const std::string why = internal::ResolutionError(error);
    return absl::StrCat("the name '", host, "' does not resolve: ", why, "; ", kChoose);
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  const std::string expected = context.server_name.empty() ? host : context.server_name;
  ProbeResult best;
  std::size_t tried = 0;
  for (const addrinfo* entry = list; entry != nullptr && tried < kMaxAddresses; entry = entry->ai_next, ++tried) {
    SocketAddress address{.size = entry->ai_addrlen};
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    ProbeResult result = Probe(address, context.tls, expected, context.deadline);
    if (tried == 0 || result.finding > best.finding) best = std::move(result);
  }
  return Sentence(endpoint, expected, best, context.flags);
}

}  // namespace

std::string DiagnoseConnection(const ConnectionFlags& flags) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to connections that the other side may have closed.
  // A channel to several endpoints expects one name of all: the first one's host.
  std::string name = flags.tls_server_name;
  if (const absl::StatusOr<Target> target = ResolveTarget(flags.endpoints); name.empty() && target.ok()) {
    name = target->host;
  }
  const ProbeTls tls{flags.uses_tls(), flags.tls_ca, flags.tls_cert, flags.tls_key};
  const Context context{flags, tls, name, absl::Now() + kPatience};
  std::set<std::string> seen;
  std::vector<std::string> sentences;
  for (const std::string& written : flags.endpoints) {
    const std::string endpoint = WithPort(written);
    absl::string_view address = endpoint;
    std::string sentence;
    if (absl::ConsumePrefix(&address, "unix:")) {
      sentence = DiagnoseSocket(std::string(address), context);
    } else {
      for (const char* scheme : {"dns:", "ipv4:", "ipv6:"}) absl::ConsumePrefix(&address, scheme);
      while (absl::ConsumePrefix(&address, "/")) {
      }
      sentence = DiagnoseHost(std::string(address), context);
    }
    if (sentence.empty()) return "";  // One server that answers is enough: the fault is elsewhere.
    if (seen.insert(sentence).second) sentences.push_back(std::move(sentence));
  }
  return absl::StrJoin(sentences, "\n  ");
}

}  // namespace attend::client
