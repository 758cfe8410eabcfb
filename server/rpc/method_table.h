// Which method does what: the one list of everything the server answers.
//
// Filled before the server starts and never changed after, so that it may be read concurrently.
#ifndef ATTEND_SERVER_RPC_METHOD_TABLE_H_
#define ATTEND_SERVER_RPC_METHOD_TABLE_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "server/rpc/call.h"

namespace attend::server {

struct Method {
  // Makes the handler of one call. Called on polling threads, concurrently.
  std::function<std::unique_ptr<CallHandler>()> make_handler;
  // Whether a call may outlive a request and its answer, so that it has to be told when the server stops.
  bool is_stream = false;
};

class MethodTable {
 public:
  // `path` is the full path, for example `/attend.v1.AttentionService/Attend`. The last of two with one path wins.
  void Add(std::string_view path, Method method) { methods_.insert_or_assign(std::string(path), std::move(method)); }

  // Null when there is no such method.
  const Method* Find(const std::string& path) const {
    const auto found = methods_.find(path);
    return found == methods_.end() ? nullptr : &found->second;
  }

 private:
  absl::flat_hash_map<std::string, Method> methods_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_RPC_METHOD_TABLE_H_
