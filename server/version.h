// The version of this build, set by the build system from its project() line.
#ifndef ATTEND_SERVER_VERSION_H_
#define ATTEND_SERVER_VERSION_H_

namespace attend::server {

inline constexpr char kVersion[] = ATTEND_VERSION;

}  // namespace attend::server

#endif  // ATTEND_SERVER_VERSION_H_
