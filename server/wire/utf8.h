// Text that is, or can be made, safe to put into a protobuf string.
#ifndef ATTEND_SERVER_WIRE_UTF8_H_
#define ATTEND_SERVER_WIRE_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace attend::server {

// Whether all of `text` is well-formed UTF-8 (RFC 3629). Pure; may be called concurrently.
bool IsUtf8(std::string_view text);

// `text` as UTF-8 (RFC 3629) of at most `max_bytes`: every byte that is not part of a well-formed character becomes
// `?`; what is too long is cut between characters and ends in `...`. REQUIRES: max_bytes >= 3. Pure; may be called
// concurrently.
std::string SafeUtf8(std::string_view text, std::size_t max_bytes);

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_UTF8_H_
