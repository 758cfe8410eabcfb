#include "server/rpc/server_timing.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace attend::server {
namespace {

// A billion milliseconds: far beyond any call, and it bounds the trailer's length.
constexpr std::int64_t kLongestMicroseconds = 1'000'000'000'000;

// Appends `label` and the duration in milliseconds with three decimals, by integers: this is done for every call.
// REQUIRES: room for both.
char* Append(char* out, char* end, std::string_view label, Clock::duration duration) {
  std::memcpy(out, label.data(), label.size());
  const auto microseconds = std::clamp<std::int64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(duration).count(), 0, kLongestMicroseconds);
  out = std::to_chars(out + label.size(), end, microseconds / 1000).ptr;
  const auto decimals = static_cast<int>(microseconds % 1000);
  *out++ = '.';
  *out++ = static_cast<char>('0' + decimals / 100);
  *out++ = static_cast<char>('0' + decimals / 10 % 10);
  *out++ = static_cast<char>('0' + decimals % 10);
  return out;
}

}  // namespace

std::string FormatServerTiming(const CallTiming& timing) {
  std::array<char, 128> buffer;
  char* const end = buffer.data() + buffer.size();
  char* out = Append(buffer.data(), end, "receive;dur=", timing.receive);
  out = Append(out, end, ", queue;dur=", timing.queue);
  out = Append(out, end, ", compute;dur=", timing.compute);
  out = Append(out, end, ", send;dur=", timing.send);
  return std::string(buffer.data(), out);
}

}  // namespace attend::server
