// A request and its answer, as those who answer see them.
#ifndef ATTEND_SERVER_HTTP_HTTP_MESSAGE_H_
#define ATTEND_SERVER_HTTP_HTTP_MESSAGE_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attend::server {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  // The value of the header with this name, in lower case; empty when there is none, the first of several.
  std::string_view Header(std::string_view name) const;
  int CountHeader(std::string_view name) const;

  std::string method;   // `GET`, `POST` or any other word; HEAD comes as GET.
  std::string path;     // Without the query, as it was sent: `/metrics`.
  HttpHeaders headers;  // Names in lower case, in the order in which they came.
  std::string peer;     // As grpc::ServerContext::peer: `ipv4:127.0.0.1:40000`.
  // Names of the verified client certificate, as Credentials::certificate. Empty without one.
  std::vector<std::string> certificate;
  bool encrypted = false;  // It came over TLS.
};

// The bytes of an answer, in pieces: those that are there, or those that a source makes as they are sent.
class HttpBody {
 public:
  // Makes bytes when there is room to send them, on the server's thread: a few tens of kilobytes at a time.
  class Source {
   public:
    virtual ~Source() = default;
    // Of all pieces together, those that were made included.
    virtual std::size_t size() const = 0;
    // The next piece; empty after the last.
    virtual std::string Next() = 0;
  };

  HttpBody() = default;
  HttpBody(const std::string& text);                           // NOLINT(google-explicit-constructor)
  HttpBody(const char* text) : HttpBody(std::string(text)) {}  // NOLINT(google-explicit-constructor)
  explicit HttpBody(const grpc::ByteBuffer& bytes);
  // Bytes that live as long as the process; they are not copied.
  static HttpBody OfStatic(std::string_view bytes);
  static HttpBody Of(std::unique_ptr<Source> source);

  // Of what Next has not given yet, unless a source makes it: then of all that it makes.
  std::size_t size() const;
  // The pieces that come next; none after the last.
  std::vector<grpc::Slice> Next();
  // Whether Next may give more.
  bool MayGoOn() const { return !slices_.empty() || source_ != nullptr; }

 private:
  std::vector<grpc::Slice> slices_;
  std::unique_ptr<Source> source_;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";  // Empty: none.
  // The header of that name, for 405; empty: none. Without an initializer, users would have to name it.
  std::string allow = "";  // NOLINT(readability-redundant-string-init)
  HttpBody body = {};
  HttpHeaders headers = {};  // Others. `cache-control` is `no-store` unless it is among them.
  bool close = false;        // The connection ends after it.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_MESSAGE_H_
