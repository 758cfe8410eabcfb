#include "server/config/server_config.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attend::server {
namespace {

constexpr std::int64_t kWithoutLimit = std::int64_t{4} << 30;
// Version 1 has no word for "unlimited"; it shows the largest multiple of a page.
constexpr std::int64_t kUnlimited = std::int64_t{1} << 60;

// Empty when it cannot be read. An iterator over the file would throw then.
std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  return std::getline(file, text, '\0') ? text : "";
}

// Lowers `tightest` to the number in the file `path`, if there is one.
void Lower(const std::string& path, std::optional<std::int64_t>& tightest) {
  std::int64_t bytes = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadAll(path)), &bytes)) return;
  if (bytes > 0 && bytes < kUnlimited) tightest = std::min(bytes, tightest.value_or(bytes));
}

// Looks into `root` and every directory on the way along `path`. Those that are missing, because the container sees
// only its own part of the tree, limit nothing.
void LowerAlongPath(const std::string& root, absl::string_view path, const char* file,
                    std::optional<std::int64_t>& tightest) {
  std::string directory = root;
  Lower(absl::StrCat(directory, "/", file), tightest);
  for (const absl::string_view component : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (component == "..") return;  // The process's group lies outside of what is mounted here.
    absl::StrAppend(&directory, "/", component);
    Lower(absl::StrCat(directory, "/", file), tightest);
  }
}

constexpr std::int64_t kMostTransportBytes = std::int64_t{1} << 30;
constexpr std::int64_t kMostRequestBytes = std::int64_t{256} << 20;

// Kept blocks (core/tensor/aligned_buffer.h) take 64 MiB at most; the program, its threads' stacks and what malloc
// keeps took 30 MiB with 16 threads, and as much again is for what was not met.
constexpr std::int64_t kProcessBytes = std::int64_t{128} << 20;

// REQUIRES: neither is negative.
std::int64_t SaturatingAdd(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<std::int64_t>::max() : sum;
}

// One `part`-th of the limit.
std::int64_t PartOfMemory(std::int64_t part) {
  const std::optional<std::int64_t> limit = ContainerMemoryLimit();
  return limit.has_value() ? std::max<std::int64_t>(*limit / part, 1) : kWithoutLimit;
}

}  // namespace

std::optional<std::int64_t> CgroupMemoryLimit(const std::string& cgroup_root, std::string_view self_cgroup) {
  std::optional<std::int64_t> tightest;
  const absl::string_view text(self_cgroup.data(), self_cgroup.size());
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    // "hierarchy:controllers:path"; version 2 has hierarchy 0 and no controllers.
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) {
      LowerAlongPath(cgroup_root, fields[2], "memory.max", tightest);
    } else if (fields[1] == "memory") {
      LowerAlongPath(absl::StrCat(cgroup_root, "/memory"), fields[2], "memory.limit_in_bytes", tightest);
    }
  }
  return tightest;
}

absl::StatusOr<std::optional<Roles>> AnonymousRoles(const IdentityConfig& identity) {
  if (!identity.anonymous_roles.has_value()) return std::nullopt;
  if (absl::StripAsciiWhitespace(*identity.anonymous_roles).empty()) return Roles();
  const absl::StatusOr<Roles> roles = Roles::Parse(*identity.anonymous_roles);
  if (!roles.ok()) return absl::InvalidArgumentError(absl::StrCat("--anonymous-roles: ", roles.status().message()));
  return *roles;
}

bool IsLoopback(const std::string& listen) {
  if (absl::StartsWith(listen, "unix:")) return true;
  const std::string host = listen.substr(0, listen.rfind(':'));
  in_addr address{};
  const bool is_ipv4 = inet_pton(AF_INET, host.c_str(), &address) == 1;
  return host == "localhost" || host == "[::1]" || (is_ipv4 && ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET);
}

std::optional<std::int64_t> ContainerMemoryLimit() {
  return CgroupMemoryLimit("/sys/fs/cgroup", ReadAll("/proc/self/cgroup"));
}

std::int64_t DefaultTransportBytes() {
  const std::optional<std::int64_t> limit = ContainerMemoryLimit();
  return limit.has_value() ? std::clamp<std::int64_t>(*limit / 8, 1, kMostTransportBytes) : kMostTransportBytes;
}

std::int64_t DefaultRequestBytes() { return std::min(kMostRequestBytes, DefaultTransportBytes()); }

MemoryPlan PlanMemory(const ServerConfig& config) {
  return {.in_flight = config.limits.max_memory_in_flight_bytes,
          .layers = config.layers.max_layers_bytes,
          .transport = config.transport.memory_bytes,
          .process = kProcessBytes};
}

std::int64_t MemoryPlan::sum() const { return SaturatingAdd(SaturatingAdd(in_flight, layers), uncounted()); }

std::int64_t MemoryPlan::uncounted() const { return SaturatingAdd(transport, process); }

std::string MemoryPlan::Text(std::optional<std::int64_t> limit) const {
  const auto mebibytes = [](std::int64_t bytes) {
    return absl::StrCat((bytes >> 20) + (bytes % (1 << 20) == 0 ? 0 : 1), " MiB");
  };
  return absl::StrCat("memory: ", mebibytes(in_flight), " in flight (--max-memory-in-flight-bytes) + ",
                      mebibytes(layers), " for layers (--max-layers-bytes) + ", mebibytes(transport),
                      " for the transport (--transport-memory-bytes) + ", mebibytes(process),
                      " for the process = ", mebibytes(sum()),
                      limit.has_value() ? absl::StrCat(", of the container's ", mebibytes(*limit)) : "");
}

std::int64_t DefaultMemoryInFlightBytes() { return PartOfMemory(2); }

std::int64_t DefaultLayersBytes() { return PartOfMemory(4); }

}  // namespace attend::server
