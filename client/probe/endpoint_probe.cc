#include "client/probe/endpoint_probe.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/probe/probe_connection.h"

namespace attend::client {
namespace {

// The client's side of an HTTP/2 connection: the preface and empty SETTINGS (RFC 9113, 3.4). A server sends its own
// SETTINGS, whose header has type 4 and stream 0.
constexpr std::string_view kPreface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
constexpr std::size_t kFrameHeaderBytes = 9;

// What `step`, a system call with a timeout, returns. A process that is stopped and goes on ends it early; then it is
// tried again, for kProbeStep in all.
template <typename Step>
auto Uninterrupted(Step step) {
  const absl::Time end = absl::Now() + kProbeStep;
  while (true) {
    errno = 0;
    const auto result = step();
    if (result >= 0 || errno != EINTR) return result;
    if (absl::Now() < end) continue;
    errno = EAGAIN;
    return result;
  }
}

struct Free {
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

// What the first bytes of an answer are; `silent` is the finding without any.
Finding Classify(std::string_view answer, Finding silent) {
  if (answer.empty()) return silent;
  if (answer.size() >= kFrameHeaderBytes && answer[3] == 4 && answer.substr(5, 4) == std::string_view("\0\0\0\0", 4)) {
    return Finding::kWorks;
  }
  if (answer.substr(0, 5) == "HTTP/") return Finding::kHttp1;
  // A TLS record: an alert (21) or a handshake (22), of version 3.
  if (answer.size() >= 2 && (answer[0] == 21 || answer[0] == 22) && answer[1] == 3) return Finding::kTlsServer;
  return Finding::kForeign;
}

// Says `greeting` in plaintext and looks at what comes back.
ProbeResult Greet(const SocketAddress& address, std::string_view greeting, absl::Time deadline) {
  const ProbeConnection connection(address, deadline);
  if (!connection.ok()) return connection.Failure();
  const auto greet = [&] { return send(connection.fd(), greeting.data(), greeting.size(), MSG_NOSIGNAL); };
  if (Uninterrupted(greet) < 0) return {Finding::kClosed};
  char bytes[kFrameHeaderBytes];
  const ssize_t size = Uninterrupted([&] { return recv(connection.fd(), bytes, sizeof bytes, MSG_WAITALL); });
  const bool timed_out = size < 0 && errno == EAGAIN;
  return {Classify({bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0))},
                   timed_out ? Finding::kSilent : Finding::kClosed)};
}

// Plaintext alone. A server of HTTP/1 may answer HTTP/2's preface with anything.
ProbeResult ProbePlaintext(const SocketAddress& address, absl::Time deadline) {
  ProbeResult result = Greet(address, kPreface, deadline);
  if (result.finding != Finding::kForeign && result.finding != Finding::kClosed) return result;
  const ProbeResult http1 = Greet(address, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", deadline);
  return http1.finding == Finding::kHttp1 ? http1 : result;
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

// The trust and the identity that `tls` names. What the files hold was checked when the client was made.
// `*asked` becomes true when the server demands a certificate.
Owned<SSL_CTX> NewContext(const ProbeTls& tls, bool* asked) {
  Owned<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  const auto note = [](SSL* /*ssl*/, void* flag) {
    *static_cast<bool*>(flag) = true;
    return 1;
  };
  SSL_CTX_set_cert_cb(context.get(), note, asked);
  if (tls.ca.empty()) {
    SSL_CTX_set_default_verify_paths(context.get());
  } else {
    SSL_CTX_load_verify_file(context.get(), tls.ca.c_str());
  }
  if (!tls.cert.empty()) {
    SSL_CTX_use_certificate_chain_file(context.get(), tls.cert.c_str());
    SSL_CTX_use_PrivateKey_file(context.get(), tls.key.c_str(), SSL_FILETYPE_PEM);
  }
  return context;
}

// One handshake, which goes on whatever the certificate is: what is wrong is told at its end.
class TlsProbe {
 public:
  TlsProbe(const SocketAddress& address, const ProbeTls& tls, const std::string& name, absl::Time deadline)
      : connection_(address, deadline),
        has_certificate_(!tls.cert.empty()),
        context_(NewContext(tls, &asked_for_certificate_)),
        ssl_(SSL_new(context_.get())) {
    constexpr unsigned char kHttp2[] = {2, 'h', '2'};
    SSL_set_alpn_protos(ssl_.get(), kHttp2, sizeof kHttp2);
    // A name that is no address.
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), name.c_str()) != 1 && !name.empty()) {
      SSL_set_tlsext_host_name(ssl_.get(), name.c_str());
      SSL_set1_host(ssl_.get(), name.c_str());
    }
    SSL_set_fd(ssl_.get(), connection_.fd());
  }

  ProbeResult Run() {
    if (!connection_.ok()) return connection_.Failure();
    if (!Try([&] { return SSL_connect(ssl_.get()); })) return {Failure()};
    if (ProbeResult certificate = JudgeCertificate(); certificate.finding != Finding::kWorks) return certificate;
    const unsigned char* protocol = nullptr;
    unsigned int size = 0;
    SSL_get0_alpn_selected(ssl_.get(), &protocol, &size);
    if (size == 0) return {Finding::kNoHttp2};
    char bytes[kFrameHeaderBytes];
    // In TLS 1.3 a server judges the client's certificate after the client's handshake is over.
    const bool works = Try([&] { return SSL_write(ssl_.get(), kPreface.data(), static_cast<int>(kPreface.size())); }) &&
                       Try([&] { return SSL_read(ssl_.get(), bytes, sizeof bytes); });
    return {works ? Finding::kWorks : Failure()};
  }

  // Whether the server took part in a handshake, however it ended.
  bool SpeaksTls() const { return is_alert_ || Owned<X509>(SSL_get1_peer_certificate(ssl_.get())) != nullptr; }

 private:
  // Whether a step of OpenSSL's succeeded.
  template <typename Step>
  bool Try(Step step) {
    const int result = Uninterrupted(step);
    if (result > 0) return true;
    const int error = SSL_get_error(ssl_.get(), result);
    timed_out_ = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
    const int reason = ERR_GET_REASON(ERR_peek_last_error());
    is_alert_ = reason >= SSL_AD_REASON_OFFSET;
    is_foreign_ = reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST;
    ERR_clear_error();
    return false;
  }

  Finding Failure() const {
    if (timed_out_) return Finding::kSilent;
    if (is_foreign_) return Finding::kForeign;
    if (asked_for_certificate_) {
      return has_certificate_ ? Finding::kClientCertificateRefused : Finding::kClientCertificateMissing;
    }
    return is_alert_ ? Finding::kNoHttp2 : Finding::kClosed;
  }

  ProbeResult JudgeCertificate() const {
    const long result = SSL_get_verify_result(ssl_.get());  // NOLINT(google-runtime-int): OpenSSL's type.
    switch (result) {
      case X509_V_OK: return {Finding::kWorks};
      case X509_V_ERR_CERT_HAS_EXPIRED: return {Finding::kExpired};
      case X509_V_ERR_HOSTNAME_MISMATCH:
      case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return {Finding::kOtherName, NamesOf(Owned<X509>(SSL_get1_peer_certificate(ssl_.get())).get())};
      default: return {Finding::kUntrusted, X509_verify_cert_error_string(result)};
    }
  }

  const ProbeConnection connection_;
  const bool has_certificate_;
  bool asked_for_certificate_ = false;
  bool timed_out_ = false;
  bool is_alert_ = false;    // The server refused with a TLS alert.
  bool is_foreign_ = false;  // What came is no TLS.
  const Owned<SSL_CTX> context_;
  const Owned<SSL> ssl_;
};

}  // namespace

ProbeResult Probe(const SocketAddress& address, const ProbeTls& tls, const std::string& server_name,
                  absl::Time deadline) {
  const auto says_nothing = [](const ProbeResult& result) {
    return result.finding == Finding::kClosed || result.finding == Finding::kSilent;
  };
  if (!tls.encrypted) {
    ProbeResult plain = ProbePlaintext(address, deadline);
    if (!says_nothing(plain)) return plain;
    // A TLS server may close, or wait for more, without a word.
    TlsProbe probe(address, tls, server_name, deadline);
    probe.Run();
    return probe.SpeaksTls() ? ProbeResult{Finding::kTlsServer} : plain;
  }
  ProbeResult encrypted = TlsProbe(address, tls, server_name, deadline).Run();
  if (!says_nothing(encrypted) && encrypted.finding != Finding::kForeign) return encrypted;
  ProbeResult plain = ProbePlaintext(address, deadline);
  if (plain.finding == Finding::kWorks) return {Finding::kPlaintextServer};
  return plain.finding == Finding::kHttp1 ? plain : encrypted;
}

}  // namespace attend::client
