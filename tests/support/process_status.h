// What the kernel says of this process's memory.
#ifndef ATTEND_TESTS_SUPPORT_PROCESS_STATUS_H_
#define ATTEND_TESTS_SUPPORT_PROCESS_STATUS_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace attend::testing {

// `VmPeak` and the like of this process, in bytes.
inline std::int64_t ProcessStatus(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, key.size() + 1, key + ":") == 0) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  ADD_FAILURE() << "no " << key;
  return 0;
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_PROCESS_STATUS_H_
