#include "client/lib/bearer_token.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attend::client {
namespace {

constexpr int kLoopbackNet = 127;

bool IsLoopback(const std::string& host) {
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == kLoopbackNet;
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return host == "localhost";
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == kLoopbackNet);
}

// `[::1]:50051` gives `::1`.
std::string HostOf(absl::string_view endpoint) {
  std::string host = WithPort(std::string(endpoint));
  host.resize(std::min(host.rfind(':'), host.size()));
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

class TokenSender final : public grpc::experimental::Interceptor {
 public:
  explicit TokenSender(const std::string& value) : value_(value) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->insert({"authorization", value_});
    }
    methods->Proceed();
  }

 private:
  const std::string& value_;  // The factory's, which its channel owns and each call outlives.
};

class TokenSenders final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenSenders(const std::string& token) : value_(absl::StrCat("Bearer ", token)) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new TokenSender(value_);  // gRPC deletes it.
  }

 private:
  const std::string value_;
};

}  // namespace

bool IsLocal(const Target& target) {
  absl::string_view addresses = target.uri;
  if (absl::StartsWith(addresses, "unix:")) return true;
  addresses.remove_prefix(std::min(addresses.find(':') + 1, addresses.size()));
  // Behind an authority, as in `dns://resolver/host:port`.
  if (const std::size_t slash = addresses.rfind('/'); slash != absl::string_view::npos) {
    addresses.remove_prefix(slash + 1);
  }
  const std::vector<absl::string_view> all = absl::StrSplit(addresses, ',');
  return std::all_of(all.begin(), all.end(), [](absl::string_view endpoint) { return IsLoopback(HostOf(endpoint)); });
}

absl::Status CheckToken(const std::string& token) {
  if (std::all_of(token.begin(), token.end(), absl::ascii_isgraph)) return absl::OkStatus();
  return absl::InvalidArgumentError("the token has a blank or a character that is not printable ASCII");
}

namespace internal {

absl::Status CheckTokenMayGo(const ClientOptions& options, const Target& target) {
  if (absl::Status status = CheckToken(options.token); !status.ok()) return status;
  if (options.token.empty() || options.tls.has_value() || options.insecure || IsLocal(target)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a token is not sent in plaintext to ", target.uri,
                                                 ", which may be another machine: use TLS, or set `insecure` in a "
                                                 "network that you trust"));
}

Interceptors SendToken(const std::string& token) {
  Interceptors interceptors;
  if (!token.empty()) interceptors.push_back(std::make_unique<TokenSenders>(token));
  return interceptors;
}

}  // namespace internal
}  // namespace attend::client
