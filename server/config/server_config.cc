#include "server/config/server_config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "formats/files/mapped_file.h"

namespace attend::server {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;
constexpr std::int64_t kMostWithoutContainer = std::int64_t{4} << 30;
// Version 1 has no word for "unlimited"; it shows the largest multiple of a page.
constexpr std::int64_t kUnlimited = std::int64_t{1} << 60;

std::string ReadAll(const std::string& path) { return formats::ReadTextFile(path, kMaxFileBytes).value_or(""); }

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

// One `part`-th of what there is.
std::int64_t PartOfMemory(std::int64_t part, const MemoryBounds& bounds) {
  const std::int64_t bytes = std::max<std::int64_t>(bounds.tightest().value_or(kUnlimited) / part, 1);
  return bounds.container.has_value() ? bytes : std::min(bytes, kMostWithoutContainer);
}

std::optional<std::int64_t> MachineMemory() {
  const std::int64_t pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return std::nullopt;
  return pages * page_bytes;
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

std::optional<std::int64_t> MemoryBounds::tightest() const {
  if (!container.has_value() || !machine.has_value()) return container.has_value() ? container : machine;
  return std::min(*container, *machine);
}

MemoryBounds ReadMemoryBounds() {
  return {.container = CgroupMemoryLimit("/sys/fs/cgroup", ReadAll("/proc/self/cgroup")), .machine = MachineMemory()};
}

std::int64_t DefaultTransportBytes(const MemoryBounds& bounds) {
  return std::min(PartOfMemory(8, bounds), kMostTransportBytes);
}

std::int64_t DefaultRequestBytes(const MemoryBounds& bounds) {
  return std::min(kMostRequestBytes, DefaultTransportBytes(bounds));
}

std::int64_t DefaultMemoryInFlightBytes(const MemoryBounds& bounds) { return PartOfMemory(2, bounds); }

std::int64_t DefaultLayersBytes(const MemoryBounds& bounds) { return PartOfMemory(4, bounds); }

MemoryPlan PlanMemory(const ServerConfig& config) {
  return {.in_flight = config.limits.max_memory_in_flight_bytes,
          .layers = config.layers.max_layers_bytes,
          .transport = config.transport.memory_bytes,
          .process = kProcessBytes};
}

std::int64_t MemoryPlan::sum() const { return SaturatingAdd(SaturatingAdd(in_flight, layers), uncounted()); }

std::int64_t MemoryPlan::uncounted() const { return SaturatingAdd(transport, process); }

bool MemoryPlan::Exceeds(const MemoryBounds& bounds) const {
  const std::optional<std::int64_t> there = bounds.tightest();
  return there.has_value() && sum() > *there;
}

std::string MemoryPlan::Text(const MemoryBounds& bounds) const {
  const auto mebibytes = [](std::int64_t bytes) {
    return absl::StrCat((bytes >> 20) + (bytes % (1 << 20) == 0 ? 0 : 1), " MiB");
  };
  const std::optional<std::int64_t> there = bounds.tightest();
  const bool is_container = there.has_value() && there == bounds.container;
  return absl::StrCat(
      "memory: ", mebibytes(in_flight), " in flight (--max-memory-in-flight-bytes) + ", mebibytes(layers),
      " for layers (--max-layers-bytes) + ", mebibytes(transport), " for the transport (--transport-memory-bytes) + ",
      mebibytes(process), " for the process = ", mebibytes(sum()),
      there.has_value() ? absl::StrCat(", of the ", is_container ? "container" : "machine", "'s ", mebibytes(*there))
                        : "");
}

}  // namespace attend::server
