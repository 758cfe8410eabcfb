// A body of Boost.Beast's that is written from an HttpBody, without copying what is there.
#ifndef ATTEND_SERVER_HTTP_SLICES_BODY_H_
#define ATTEND_SERVER_HTTP_SLICES_BODY_H_

#include <grpcpp/support/slice.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/optional.hpp>
#include <utility>
#include <vector>

#include "server/http/http_message.h"

namespace attend::server {

struct SlicesBody {
  using value_type = HttpBody;

  class writer {  // NOLINT(readability-identifier-naming): Beast's name.
   public:
    using const_buffers_type = std::vector<boost::asio::const_buffer>;

    template <bool is_request, typename Fields>
    writer(boost::beast::http::header<is_request, Fields>& /*header*/, value_type& body) : body_(body) {}

    void init(boost::beast::error_code& error) { error = {}; }
    // What comes next, once what came before has been sent.
    boost::optional<std::pair<const_buffers_type, bool>> get(boost::beast::error_code& error) {
      error = {};
      sending_ = body_.Next();
      if (sending_.empty()) return boost::none;
      const_buffers_type buffers;
      buffers.reserve(sending_.size());
      for (const grpc::Slice& slice : sending_) buffers.emplace_back(slice.begin(), slice.size());
      return std::make_pair(std::move(buffers), body_.MayGoOn());
    }

   private:
    value_type& body_;
    std::vector<grpc::Slice> sending_;
  };
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_HTTP_SLICES_BODY_H_
