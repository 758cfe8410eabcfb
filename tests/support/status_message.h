// What a status says, as text that gtest's matchers and messages take: absl::string_view is no std::string_view in
// Debian.
#ifndef ATTEND_TESTS_SUPPORT_STATUS_MESSAGE_H_
#define ATTEND_TESTS_SUPPORT_STATUS_MESSAGE_H_

#include <string>

#include "absl/status/status.h"

namespace attend::testing {

inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_STATUS_MESSAGE_H_
