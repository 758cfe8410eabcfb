// One connection of an HttpServer: reads a request, has it answered, writes the answer, and reads on.
//
// Everything runs on the server's one thread; HttpReply is the way onto it.
#ifndef ATTEND_SERVER_HTTP_HTTP_CONNECTION_H_
#define ATTEND_SERVER_HTTP_HTTP_CONNECTION_H_

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/http/http_body_reader.h"
#include "server/http/http_server.h"
#include "server/http/http_service.h"
#include "server/http/http_stream.h"
#include "server/http/slices_body.h"

namespace attend::server {

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // Told of a connection's life.
  class Owner {
   public:
    virtual ~Owner() = default;
    // A whole request has come that is answered later.
    virtual void OnBusy(HttpConnection& /*connection*/) {}
    // It has been answered and waits again.
    virtual void OnAnswered(HttpConnection& connection) = 0;
    // It is closed; the owner lets go of it.
    virtual void OnClosed(HttpConnection& connection) = 0;
  };

  // Where the owner keeps it.
  struct Place {
    std::list<std::shared_ptr<HttpConnection>>::iterator position;
    bool is_busy = false;     // In which of the lists.
    std::int64_t number = 0;  // In the order in which they came.
    std::string site;         // Whose share it belongs to.
  };

  // `peer`: its name, as gRPC writes it. All others must outlive the connection.
  HttpConnection(boost::asio::ip::tcp::socket socket, std::string peer, const HttpServer::Options& options,
                 HttpService& service, Owner& owner);

  // Serves until the connection ends; the operations under way hold it.
  void Start();
  // Closes it now, whatever it does.
  void Close();
  // Whether an answer has been on its way since before then.
  bool IsWritingSince(std::chrono::steady_clock::time_point then) const { return writing_since_ < then; }
  // Sends the answer to the request with this number; see HttpReply. Any thread.
  void Send(std::uint64_t request, HttpResponse answer);

  Place place;  // The owner's.

 private:
  using Error = boost::beast::error_code;
  using RequestBody = boost::beast::http::empty_body;

  // Its first bytes may take the idle timeout; the rest of its header has to follow within the read timeout.
  void WaitForRequest();
  HttpServer::Duration TimeLeft() const { return end_of_age_ - std::chrono::steady_clock::now(); }
  void StartRequest();
  // Reads up to `size` bytes, then calls `next` of this object.
  void Read(std::size_t size, void (HttpConnection::*next)());
  // Takes what has been read, as far as it belongs to this request's header.
  void ParseHeader();
  // Has Beast parse what has been read. Errors: need_more; those of a header that cannot be read.
  Error ParseRead();
  void RefuseToRead(const Error& error);
  void OnHeader();
  // What is wrong with a header that is complete, if anything.
  std::optional<HttpResponse> CheckHeader() const;
  // Takes what parser_ knows, and lets go of it.
  HttpRequest MakeRequest();
  // Answers a request whose body, if it has one, was not asked for.
  void AnswerWithoutBody(HttpResponse answer);
  void StartBody();
  void Continue();
  // Ends the wait for a body that does not come whole in its time.
  void WatchBody();
  // Takes what has been read of the body.
  void ReadBody();
  // Answers in place of a body that is not read to its end.
  void EndUnread(HttpResponse answer);
  void OnBody();
  void WatchDeadline();
  // Notices while an answer is made that the peer has gone.
  void WatchPeer();
  void OnAnswer(HttpResponse answer);
  // What is wrong with a request that cannot be read is said, and the connection ends.
  void Refuse(HttpResponse answer);
  void Write(HttpResponse answer, bool keep_alive);
  void OnWritten(bool keep_alive);
  // Ends the connection so that the peer can read the last response: an end with unread bytes would reset it. What
  // still comes is discarded, for a body's time at most.
  void Linger();
  void Discard();

  const HttpServer::Options& options_;
  HttpService& service_;
  Owner& owner_;
  const std::chrono::steady_clock::time_point end_of_age_;
  HttpStream stream_;
  const std::string peer_;
  std::vector<std::string> certificate_;
  boost::beast::flat_buffer buffer_;  // Read and not taken: a line that is incomplete, or the next request.
  std::optional<boost::beast::http::request_parser<RequestBody>> parser_;  // Until the request is made of it.
  std::size_t header_bytes_ = 0;                                           // Parsed of this request's header.
  std::size_t header_lines_ = 0;
  std::uint64_t request_ = 0;  // Its number on this connection; one is answered at a time.
  bool head_ = false;
  bool keep_alive_ = false;
  std::optional<std::uint64_t> length_;  // Of its body; nothing for one in chunks.
  bool expects_continue_ = false;
  std::optional<HttpBodyReader> body_;
  std::size_t read_bytes_ = 0;                         // How much of it is asked for at a time.
  bool late_ = false;                                  // Its time is up.
  std::shared_ptr<HttpCall> call_;                     // Until its answer is written.
  bool answered_ = false;                              // That is under way.
  std::optional<boost::asio::steady_timer> deadline_;  // Of the body, then of the call.
  bool watching_ = false;                              // A read is under way that only looks whether the peer is there.
  bool waiting_ = false;                               // The next request is waited for as soon as that read has ended.
  boost::beast::http::response<SlicesBody> response_;
  // When its first byte was written; max(): no answer is on its way.
  std::chrono::steady_clock::time_point writing_since_ = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point end_of_linger_;  // Set by Linger().
  bool closed_ = false;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_HTTP_CONNECTION_H_
