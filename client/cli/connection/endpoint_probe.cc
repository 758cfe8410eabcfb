#include "client/cli/connection/endpoint_probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace attend::client {
namespace {

// How long one step may take: connecting, a handshake, the first bytes.
constexpr absl::Duration kStep = absl::Seconds(1);

// The client's side of an HTTP/2 connection: the preface and empty SETTINGS (RFC 9113, 3.4). A server sends its own
// SETTINGS, whose header has type 4 and stream 0.
constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
constexpr std::size_t kPrefaceBytes = sizeof(kPreface) - 1;
constexpr std::size_t kFrameHeaderBytes = 9;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

// A connection of the probe's own, never blocking.
class Connection {
 public:
  // Sets errno_ when it cannot be made.
  Connection(const SocketAddress& address, absl::Time deadline)
      : deadline_(deadline), fd_(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) error_ = errno;
    if (error_ != EINPROGRESS) return;
    error_ = ETIMEDOUT;
    if (!Wait(POLLOUT)) return;
    socklen_t size = sizeof error_;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error_, &size);
  }
  ~Connection() {
    if (fd_ >= 0) close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return fd_; }
  int error() const { return error_; }

  // False when nothing happens for a step, or until the deadline.
  bool Wait(short events) const {  // NOLINT(google-runtime-int): poll's type.
    const absl::Duration left = std::min(kStep, deadline_ - absl::Now());
    pollfd waiting{.fd = fd_, .events = events, .revents = 0};
    return left > absl::ZeroDuration() && poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) > 0;
  }

 private:
  absl::Time deadline_;
  int fd_;
  int error_ = 0;
};

ProbeResult Unreachable(int error) {
  // A Unix socket without a file, or with a file that no server has.
  if (error == ECONNREFUSED || error == ENOENT) return {Finding::kRefused, std::strerror(error)};
  return {Finding::kUnreachable, std::strerror(error)};
}

// What the first bytes of an answer are; `silent` is the finding without any.
ProbeResult Classify(std::string_view answer, Finding silent) {
  if (answer.empty()) return {silent};
  if (answer.size() >= kFrameHeaderBytes && answer[3] == 4 && answer.substr(5, 4) == std::string_view("\0\0\0\0", 4)) {
    return {Finding::kWorks};
  }
  if (answer.substr(0, 5) == "HTTP/") return {Finding::kHttp1};
  // A TLS record: an alert (21) or a handshake (22), of version 3.
  if (answer.size() >= 2 && (answer[0] == 21 || answer[0] == 22) && answer[1] == 3) return {Finding::kTlsServer};
  return {Finding::kForeign};
}

// Says `greeting` in plaintext and looks at what comes back.
ProbeResult Greet(const SocketAddress& address, std::string_view greeting, absl::Time deadline) {
  const Connection connection(address, deadline);
  if (connection.error() != 0) return Unreachable(connection.error());
  if (send(connection.fd(), greeting.data(), greeting.size(), MSG_NOSIGNAL) < 0) return {Finding::kClosed};
  std::string answer;
  while (answer.size() < kFrameHeaderBytes) {
    if (!connection.Wait(POLLIN)) return Classify(answer, Finding::kSilent);
    char bytes[64];
    const ssize_t size = recv(connection.fd(), bytes, sizeof bytes, 0);
    if (size <= 0) return Classify(answer, Finding::kClosed);
    answer.append(bytes, static_cast<std::size_t>(size));
  }
  return Classify(answer, Finding::kSilent);
}

// Plaintext alone. A server of HTTP/1 may answer HTTP/2's preface with anything.
ProbeResult ProbePlaintext(const SocketAddress& address, absl::Time deadline) {
  ProbeResult result = Greet(address, std::string_view(kPreface, kPrefaceBytes), deadline);
  if (result.finding != Finding::kForeign && result.finding != Finding::kClosed) return result;
  const ProbeResult http1 = Greet(address, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", deadline);
  return http1.finding == Finding::kHttp1 ? http1 : result;
}

Owned<BIO> Memory(const std::string& text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

void Trust(const std::string& authorities, SSL_CTX* context) {
  if (authorities.empty()) {
    SSL_CTX_set_default_verify_paths(context);
    return;
  }
  const Owned<BIO> in = Memory(authorities);
  while (const Owned<X509> certificate{PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr)}) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate.get());
  }
}

void Identify(const TlsOptions& tls, SSL_CTX* context) {
  if (tls.client_certificate.empty()) return;
  const Owned<BIO> chain = Memory(tls.client_certificate);
  if (const Owned<X509> own{PEM_read_bio_X509_AUX(chain.get(), nullptr, nullptr, nullptr)}) {
    SSL_CTX_use_certificate(context, own.get());
  }
  while (const Owned<X509> issuer{PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)}) {
    SSL_CTX_add1_chain_cert(context, issuer.get());
  }
  const Owned<BIO> in = Memory(tls.client_key);
  const Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  if (key != nullptr) SSL_CTX_use_PrivateKey(context, key.get());
}

bool IsNumeric(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

// The names that a certificate is for.
std::string NamesOf(X509* certificate) {
  const Owned<GENERAL_NAMES> list(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::vector<std::string> names;
  for (int i = 0; i < sk_GENERAL_NAME_num(list.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(list.get(), i);
    const bool is_address = name->type == GEN_IPADD;
    if (!is_address && name->type != GEN_DNS) continue;
    const ASN1_STRING* value = is_address ? name->d.iPAddress : name->d.dNSName;
    const auto* bytes = ASN1_STRING_get0_data(value);
    char text[INET6_ADDRSTRLEN] = "";
    if (!is_address) {
      names.emplace_back(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(ASN1_STRING_length(value)));
    } else if (inet_ntop(ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text) != nullptr) {
      names.emplace_back(text);
    }
  }
  return names.empty() ? "no name" : absl::StrJoin(names, ", ");
}

// One handshake, which goes on whatever the certificate is: what is wrong is told at its end.
class TlsProbe {
 public:
  TlsProbe(const SocketAddress& address, const TlsOptions& tls, const std::string& name, absl::Time deadline)
      : connection_(address, deadline), has_certificate_(!tls.client_certificate.empty()) {
    if (connection_.error() != 0) return;
    context_.reset(SSL_CTX_new(TLS_client_method()));
    Trust(tls.ca_certificates, context_.get());
    Identify(tls, context_.get());
    SSL_CTX_set_cert_cb(
        context_.get(),
        [](SSL*, void* asked) {
          *static_cast<bool*>(asked) = true;
          return 1;
        },
        &asked_for_certificate_);
    ssl_.reset(SSL_new(context_.get()));
    constexpr unsigned char kHttp2[] = {2, 'h', '2'};
    SSL_set_alpn_protos(ssl_.get(), kHttp2, sizeof kHttp2);
    if (IsNumeric(name)) {
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), name.c_str());
    } else if (!name.empty()) {
      SSL_set_tlsext_host_name(ssl_.get(), name.c_str());
      SSL_set1_host(ssl_.get(), name.c_str());
    }
    SSL_set_fd(ssl_.get(), connection_.fd());
  }

  ProbeResult Run() {
    if (connection_.error() != 0) return Unreachable(connection_.error());
    if (!Until([&] { return SSL_connect(ssl_.get()); })) return Failed();
    if (ProbeResult certificate = JudgeCertificate(); certificate.finding != Finding::kWorks) return certificate;
    const unsigned char* protocol = nullptr;
    unsigned int size = 0;
    SSL_get0_alpn_selected(ssl_.get(), &protocol, &size);
    if (size == 0) return {Finding::kNoHttp2};
    char bytes[kFrameHeaderBytes];
    // In TLS 1.3 a server judges the client's certificate after the client's handshake is over.
    if (!Until([&] { return SSL_write(ssl_.get(), kPreface, kPrefaceBytes); }) ||
        !Until([&] { return SSL_read(ssl_.get(), bytes, sizeof bytes); })) {
      return Failed();
    }
    return {Finding::kWorks};
  }

  // Whether the server took part in a handshake, however it ended.
  bool SpeaksTls() const {
    if (ssl_ == nullptr) return false;
    const Owned<X509> certificate(SSL_get1_peer_certificate(ssl_.get()));
    return certificate != nullptr || is_alert_;
  }

 private:
  // False when it fails, or does not end in time.
  template <typename Step>
  bool Until(const Step& step) {
    while (true) {
      ERR_clear_error();
      const int result = step();
      if (result > 0) return true;
      const int error = SSL_get_error(ssl_.get(), result);
      if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        if (connection_.Wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT)) continue;
        timed_out_ = true;
        return false;
      }
      const int reason = ERR_GET_REASON(ERR_peek_last_error());
      is_alert_ = reason >= SSL_AD_REASON_OFFSET;
      is_foreign_ = reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST;
      ERR_clear_error();
      return false;
    }
  }

  ProbeResult Failed() const {
    if (timed_out_) return {Finding::kSilent};
    if (is_foreign_) return {Finding::kForeign};
    if (asked_for_certificate_) {
      return {has_certificate_ ? Finding::kClientCertificateRefused : Finding::kClientCertificateMissing};
    }
    return {is_alert_ ? Finding::kNoHttp2 : Finding::kClosed};
  }

  ProbeResult JudgeCertificate() const {
    const long result = SSL_get_verify_result(ssl_.get());  // NOLINT(google-runtime-int): OpenSSL's type.
    switch (result) {
      case X509_V_OK: return {Finding::kWorks};
      case X509_V_ERR_CERT_HAS_EXPIRED: return {Finding::kExpired};
      case X509_V_ERR_HOSTNAME_MISMATCH:
      case X509_V_ERR_IP_ADDRESS_MISMATCH: {
        const Owned<X509> certificate(SSL_get1_peer_certificate(ssl_.get()));
        return {Finding::kOtherName, NamesOf(certificate.get())};
      }
      default: return {Finding::kUntrusted, X509_verify_cert_error_string(result)};
    }
  }

  const Connection connection_;
  const bool has_certificate_;
  bool asked_for_certificate_ = false;
  bool timed_out_ = false;
  bool is_alert_ = false;    // The server refused with a TLS alert.
  bool is_foreign_ = false;  // What came is no TLS.
  Owned<SSL_CTX> context_;
  Owned<SSL> ssl_;
};

}  // namespace

ProbeResult Probe(const SocketAddress& address, const std::optional<TlsOptions>& tls, const std::string& server_name,
                  absl::Time deadline) {
  if (!tls.has_value()) {
    ProbeResult plain = ProbePlaintext(address, deadline);
    if (plain.finding != Finding::kClosed && plain.finding != Finding::kSilent) return plain;
    // A TLS server may close, or wait for more, without a word.
    TlsProbe probe(address, TlsOptions(), server_name, deadline);
    probe.Run();
    return probe.SpeaksTls() ? ProbeResult{Finding::kTlsServer} : plain;
  }
  ProbeResult encrypted = TlsProbe(address, *tls, server_name, deadline).Run();
  if (encrypted.finding != Finding::kClosed && encrypted.finding != Finding::kForeign &&
      encrypted.finding != Finding::kSilent) {
    return encrypted;
  }
  ProbeResult plain = ProbePlaintext(address, deadline);
  if (plain.finding == Finding::kWorks) return {Finding::kPlaintextServer};
  return plain.finding == Finding::kHttp1 ? plain : encrypted;
}

}  // namespace attend::client
