// Why the system does not find a name, in its own words.
#ifndef ATTEND_TESTS_SUPPORT_LOOKUP_FAILURE_H_
#define ATTEND_TESTS_SUPPORT_LOOKUP_FAILURE_H_

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace attend::testing {

// What it is depends on the C library's configuration and on what this process has looked up before. REQUIRES: `name`
// has no address.
inline std::string LookupFailure(const char* name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(name, "1", &hints, &list);
  return error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error);
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_LOOKUP_FAILURE_H_
