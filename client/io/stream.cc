#include "client/io/stream.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace attend::client {
namespace {

constexpr std::int64_t kFirstChunk = std::int64_t{1} << 20;

}  // namespace

bool ReadFailed(const std::istream& in) { return in.bad() || (&in == &std::cin && std::ferror(stdin) != 0); }

absl::StatusOr<std::string> ReadExactly(std::istream& in, std::int64_t size, const std::string& what) {
  std::string bytes;
  std::int64_t got = 0;
  while (got < size) {
    const std::int64_t chunk = std::min(size - got, std::max(kFirstChunk, got));
    bytes.resize(static_cast<std::size_t>(got + chunk));
    in.read(bytes.data() + got, chunk);
    got += in.gcount();
    if (in.gcount() == chunk) continue;
    if (ReadFailed(in)) return absl::DataLossError(absl::StrCat("reading ", what, " failed"));
    return absl::DataLossError(absl::StrCat(what, " is incomplete: expected ", size, " bytes, found ", got));
  }
  return bytes;
}

absl::StatusOr<std::ifstream> OpenFile(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path, ": it is a directory"));
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  return in;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::int64_t max_bytes) {
  absl::StatusOr<std::ifstream> in = OpenFile(path);
  if (!in.ok()) return in.status();
  std::string contents(static_cast<std::size_t>(max_bytes) + 1, '\0');
  in->read(contents.data(), max_bytes + 1);
  if (ReadFailed(*in)) return absl::DataLossError(absl::StrCat("reading ", path, " failed"));
  if (in->gcount() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is larger than ", max_bytes, " bytes"));
  }
  contents.resize(static_cast<std::size_t>(in->gcount()));
  return contents;
}

absl::Status Annotate(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace attend::client
