#include "server/metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace attend::server {
namespace {

// Empty when it cannot be read. An iterator over the file would throw then.
std::string ReadAll(const char* path) {
  std::ifstream file(path);
  std::string text;
  return std::getline(file, text, '\0') ? text : "";
}

// The fields of /proc/self/stat behind the program's name, which may hold spaces: field 3 comes first.
std::vector<std::string> StatFields() {
  const std::string stat = ReadAll("/proc/self/stat");
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return {};
  return absl::StrSplit(stat.substr(name_end + 1), ' ', absl::SkipWhitespace());
}

// Field `number` of proc(5).
std::optional<double> Field(const std::vector<std::string>& fields, std::size_t number) {
  double value = 0;
  if (number - 3 >= fields.size() || !absl::SimpleAtod(fields[number - 3], &value)) return std::nullopt;
  return value;
}

double SecondsOf(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Seconds since 1970 at which this process was started, `start` after the machine was. By the clocks, because a service
// may not see /proc/stat; once, because clocks are set and Prometheus takes another number for another start.
double StartTime(double start) {
  static const double seconds = SecondsOf(CLOCK_REALTIME) - SecondsOf(CLOCK_BOOTTIME) + start;
  return seconds;
}

std::optional<double> OpenFiles() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end;
       entry.increment(error)) {
    ++count;
  }
  if (error || count == 0) return std::nullopt;
  return count - 1;  // Without the one that reads the directory.
}

void AddGauge(const char* name, const char* help, std::optional<double> value, Exposition& page) {
  if (value.has_value()) page.Gauge(name, help, *value);
}

}  // namespace

void WriteProcessMetrics(Exposition& page) {
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const std::vector<std::string> fields = StatFields();
  const std::optional<double> user = Field(fields, 14), system = Field(fields, 15), start = Field(fields, 22);
  if (user.has_value() && system.has_value()) {
    page.Counter("process_cpu_seconds_total", "User and system time of this process.");
    page.Add({}, (*user + *system) / ticks);
  }
  if (start.has_value()) {
    page.Gauge("process_start_time_seconds", "When this process was started, since 1970.", StartTime(*start / ticks));
  }
  AddGauge("process_threads", "Threads of this process.", Field(fields, 20), page);
  AddGauge("process_virtual_memory_bytes", "Address space of this process.", Field(fields, 23), page);
  if (const std::optional<double> pages = Field(fields, 24)) {
    page.Gauge("process_resident_memory_bytes", "Memory of this process that is resident.",
               *pages * static_cast<double>(sysconf(_SC_PAGESIZE)));
  }
  AddGauge("process_open_fds", "Files and connections that this process has open.", OpenFiles(), page);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    page.Gauge("process_max_fds", "How many it may have open.", static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace attend::server
