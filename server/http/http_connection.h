// One connection of an HttpServer: reads a request, has it answered, writes the answer, and reads on.
//
// Everything runs on the server's one thread.
#ifndef ATTEND_SERVER_HTTP_HTTP_CONNECTION_H_
#define ATTEND_SERVER_HTTP_HTTP_CONNECTION_H_

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>

#include "server/http/http_server.h"

namespace attend::server {

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // Told of a connection's life.
  class Owner {
   public:
    virtual ~Owner() = default;
    // It has been answered and waits again.
    virtual void OnAnswered(HttpConnection& connection) = 0;
    // It is closed; the owner lets go of it.
    virtual void OnClosed(HttpConnection& connection) = 0;
  };

  // All must outlive the connection.
  HttpConnection(boost::asio::ip::tcp::socket socket, const HttpServer::Options& options,
                 const HttpServer::Handler& handler, Owner& owner)
      : options_(options), handler_(handler), owner_(owner), stream_(std::move(socket)) {}

  // Serves until the connection ends; the operations under way hold it.
  void Start() { WaitForRequest(); }
  // Closes it now, whatever it does.
  void Close();

  std::list<std::shared_ptr<HttpConnection>>::iterator position;  // Where the owner keeps it.

 private:
  using Error = boost::beast::error_code;
  using Body = boost::beast::http::string_body;

  // Its first bytes may take the idle timeout; the rest of it has to follow within the read timeout.
  void WaitForRequest();
  void StartRequest();
  void ReadMore();
  // Takes what has been read, as far as it belongs to this request.
  void Parse();
  void RefuseToRead(const Error& error);
  void Answer();
  // What is wrong with a request that cannot be read is said, and the connection ends.
  void Refuse(int status, const char* why);
  void Write(HttpResponse answer, bool keep_alive, bool with_body);
  // Ends the connection so that the peer can read the last response: an end with unread bytes would reset it.
  void Linger();
  void Discard();

  const HttpServer::Options& options_;
  const HttpServer::Handler& handler_;
  Owner& owner_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;  // Read and not parsed: a line that is incomplete, or the next request.
  std::optional<boost::beast::http::request_parser<Body>> parser_;
  std::size_t header_bytes_ = 0;  // Parsed of this request's header.
  boost::beast::http::response<Body> response_;
  bool closed_ = false;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_CONNECTION_H_
