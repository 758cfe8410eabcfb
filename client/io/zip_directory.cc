#include "client/io/zip_directory.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr std::int64_t kMaxMembers = 10000;
constexpr std::int64_t kEndBytes = 22;             // Of the end of the directory, without a comment.
constexpr std::int64_t kMaxCommentBytes = 0xffff;  // Behind it.
constexpr std::int64_t kLocatorBytes = 20;
constexpr std::int64_t kEnd64Bytes = 56;
constexpr std::size_t kEntryBytes = 46;  // Of a member's entry, without name, extra fields and comment.
constexpr std::uint64_t kEndMark = 0x06054b50;
constexpr std::uint64_t kLocatorMark = 0x07064b50;
constexpr std::uint64_t kEnd64Mark = 0x06064b50;
constexpr std::uint64_t kEntryMark = 0x02014b50;
constexpr std::uint64_t kIn64 = 0xffffffff;  // The number stands in a ZIP64 field.

absl::Status Malformed(const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("the ZIP archive is malformed: ", why));
}

struct Place {
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
  std::int64_t members = 0;
};

// Numbers of 64 bits that are no offset in any file become -1.
std::int64_t Offset(std::string_view bytes, std::size_t at, int size) {
  const std::uint64_t number = ZipNumber(bytes, at, size);
  return number > std::numeric_limits<std::int64_t>::max() ? -1 : static_cast<std::int64_t>(number);
}

// Where the directory is, by the ZIP64 record that the locator before `end` points to; none without a locator.
absl::StatusOr<std::optional<Place>> FindPlace64(std::istream& in, std::int64_t end) {
  if (end < kLocatorBytes) return std::optional<Place>();
  const absl::StatusOr<std::string> locator = ReadZipBytes(in, end - kLocatorBytes, kLocatorBytes, "the ZIP64 locator");
  if (!locator.ok()) return locator.status();
  if (ZipNumber(*locator, 0, 4) != kLocatorMark) return std::optional<Place>();
  const std::int64_t offset = Offset(*locator, 8, 8);
  if (offset < 0 || offset > end - kLocatorBytes - kEnd64Bytes) return Malformed("its ZIP64 record is not in it");
  const absl::StatusOr<std::string> record = ReadZipBytes(in, offset, kEnd64Bytes, "the ZIP64 record");
  if (!record.ok()) return record.status();
  if (ZipNumber(*record, 0, 4) != kEnd64Mark) return Malformed("its ZIP64 record is not where it should be");
  return std::optional<Place>({Offset(*record, 48, 8), Offset(*record, 40, 8), Offset(*record, 32, 8)});
}

// Where the directory of an archive of `size` bytes is.
absl::StatusOr<Place> FindPlace(std::istream& in, std::int64_t size) {
  const std::int64_t tail_bytes = std::min(size, kEndBytes + kMaxCommentBytes);
  const absl::StatusOr<std::string> tail = ReadZipBytes(in, size - tail_bytes, tail_bytes, "the ZIP archive");
  if (!tail.ok()) return tail.status();
  for (std::int64_t at = tail_bytes - kEndBytes; at >= 0; --at) {
    if (ZipNumber(*tail, static_cast<std::size_t>(at), 4) != kEndMark) continue;
    const std::string_view end = std::string_view(*tail).substr(static_cast<std::size_t>(at));
    const std::int64_t end_offset = size - tail_bytes + at;
    const absl::StatusOr<std::optional<Place>> wide = FindPlace64(in, end_offset);
    if (!wide.ok()) return wide.status();
    const Place place = wide->value_or(Place{Offset(end, 16, 4), Offset(end, 12, 4), Offset(end, 10, 2)});
    if (place.offset < 0 || place.bytes < 0 || place.bytes > end_offset || place.offset > end_offset - place.bytes) {
      return Malformed("its directory is not in it");
    }
    return place;
  }
  return absl::InvalidArgumentError("it is no ZIP archive, or it was cut off: it has no directory at its end");
}

// Replaces the numbers that stand in the ZIP64 field of `extra`.
absl::Status ReadExtra(std::string_view extra, ZipMember* member) {
  while (extra.size() >= 4) {
    const std::size_t size = ZipNumber(extra, 2, 2);
    if (size > extra.size() - 4) return Malformed("an extra field is cut off");
    const bool is_zip64 = ZipNumber(extra, 0, 2) == 1;
    std::string_view field = extra.substr(4, size);
    extra.remove_prefix(4 + size);
    if (!is_zip64) continue;
    for (std::int64_t* number : {&member->bytes, &member->packed_bytes, &member->offset}) {
      if (*number != static_cast<std::int64_t>(kIn64)) continue;
      if (field.size() < 8) return Malformed("a ZIP64 field is cut off");
      *number = Offset(field, 0, 8);
      field.remove_prefix(8);
    }
  }
  return absl::OkStatus();
}

// Takes one member's entry off the front of `directory`.
absl::StatusOr<ZipMember> TakeMember(std::string_view* directory) {
  if (directory->size() < kEntryBytes || ZipNumber(*directory, 0, 4) != kEntryMark) {
    return Malformed("an entry of its directory is cut off");
  }
  const std::size_t name = ZipNumber(*directory, 28, 2), extra = ZipNumber(*directory, 30, 2);
  const std::size_t whole = kEntryBytes + name + extra + ZipNumber(*directory, 32, 2);
  if (directory->size() < whole) return Malformed("an entry of its directory is cut off");
  if ((ZipNumber(*directory, 8, 2) & 1) != 0) return absl::InvalidArgumentError("the ZIP archive is encrypted");
  ZipMember member{.name = std::string(directory->substr(kEntryBytes, name)),
                   .method = static_cast<int>(ZipNumber(*directory, 10, 2)),
                   .crc32 = static_cast<std::uint32_t>(ZipNumber(*directory, 16, 4)),
                   .packed_bytes = Offset(*directory, 20, 4),
                   .bytes = Offset(*directory, 24, 4),
                   .offset = Offset(*directory, 42, 4)};
  if (absl::Status status = ReadExtra(directory->substr(kEntryBytes + name, extra), &member); !status.ok())
    return status;
  if (member.bytes < 0 || member.packed_bytes < 0 || member.offset < 0) return Malformed("a size in it cannot be");
  directory->remove_prefix(whole);
  return member;
}

}  // namespace

std::uint64_t ZipNumber(std::string_view bytes, std::size_t at, int size) {
  std::uint64_t value = 0;
  for (int i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)]);
  return value;
}

absl::StatusOr<std::string> ReadZipBytes(std::istream& in, std::int64_t offset, std::int64_t size,
                                         const std::string& what) {
  in.clear();
  in.seekg(offset);
  return ReadExactly(in, size, what);
}

absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(std::istream& in) {
  in.clear();
  in.seekg(0, std::ios::end);
  const std::int64_t size = in.tellg();
  if (size < 0) return absl::InvalidArgumentError("an archive cannot be read from a pipe; give a file");
  const absl::StatusOr<Place> place = FindPlace(in, size);
  if (!place.ok()) return place.status();
  if (place->members < 0 || place->members > kMaxMembers) return Malformed("it has more than 10000 members");
  const absl::StatusOr<std::string> bytes = ReadZipBytes(in, place->offset, place->bytes, "the ZIP directory");
  if (!bytes.ok()) return bytes.status();
  std::string_view directory = *bytes;
  std::vector<ZipMember> members;
  std::set<std::string> names;
  for (std::int64_t i = 0; i < place->members; ++i) {
    absl::StatusOr<ZipMember> member = TakeMember(&directory);
    if (!member.ok()) return member.status();
    if (!names.insert(member->name).second) return Malformed(absl::StrCat("two members are called ", member->name));
    members.push_back(*std::move(member));
  }
  return members;
}

}  // namespace attend::client
