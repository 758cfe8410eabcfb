#include "client/io/zip.h"

#include <zlib.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "client/io/stream.h"
#include "client/io/zip_directory.h"

namespace attend::client {
namespace {

constexpr std::uint64_t kLocalMark = 0x04034b50;
constexpr std::int64_t kLocalBytes = 30;       // Of a local header, without name and extra fields.
constexpr std::int64_t kMostExpansion = 1032;  // Of deflate, for each byte.
constexpr std::int64_t kMaxArchiveBytes = std::int64_t{1} << 32;
constexpr std::int64_t kPiece = std::int64_t{1} << 20;

absl::Status Broken(const ZipMember& member, const std::string& why) {
  return absl::DataLossError(absl::StrCat("its member ", member.name, " ", why));
}

bool CanHaveItsSizes(const ZipMember& member) {
  if (member.packed_bytes > kMaxArchiveBytes) return false;  // First: a larger one, expanded, may be beyond int64.
  return member.method == 0 ? member.bytes == member.packed_bytes
                            : member.bytes <= member.packed_bytes * kMostExpansion;
}

std::uint32_t Checksum(std::string_view bytes) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

// Ends zlib's state with the scope.
struct Inflater {
  z_stream stream = {};
  Inflater() { inflateInit2(&stream, -MAX_WBITS); }  // Without a header of its own.
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

// What `packed` is deflated of. The result grows with what really comes out.
absl::StatusOr<std::string> Inflate(const ZipMember& member, const std::string& packed) {
  Inflater inflater;
  z_stream& stream = inflater.stream;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  std::int64_t left = member.packed_bytes;
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    if (stream.avail_in == 0) {
      stream.avail_in = static_cast<uInt>(std::min(left, kPiece));
      left -= stream.avail_in;
    }
    const std::size_t got = out.size();
    out.resize(got + static_cast<std::size_t>(kPiece));
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + got);
    stream.avail_out = static_cast<uInt>(kPiece);
    result = inflate(&stream, Z_NO_FLUSH);
    out.resize(out.size() - stream.avail_out);
    if (static_cast<std::int64_t>(out.size()) > member.bytes) return Broken(member, "is larger than it says");
    if (result == Z_OK && left == 0 && stream.avail_in == 0 && stream.avail_out != 0)
      return Broken(member, "is cut off");
  }
  if (result != Z_STREAM_END) return Broken(member, "is not deflated as it says");
  return out;
}

void Append(std::uint64_t value, int size, std::string* out) {
  for (int i = 0; i < size; ++i) out->push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

// What local header and directory say alike: version 2.0, no flags, stored, 1980-01-01 00:00, checksum, sizes, name.
void AppendFacts(const std::string& name, const std::string& contents, std::string* out) {
  Append(20, 2, out);
  Append(0, 6, out);
  Append(0x0021, 2, out);
  Append(Checksum(contents), 4, out);
  Append(contents.size(), 4, out);
  Append(contents.size(), 4, out);
  Append(name.size(), 2, out);
  Append(0, 2, out);
}

}  // namespace

absl::StatusOr<ZipReader> ZipReader::Create(std::unique_ptr<std::istream> in) {
  absl::StatusOr<std::vector<ZipMember>> members = ReadZipDirectory(*in);
  if (!members.ok()) return members.status();
  return ZipReader(std::move(in), *std::move(members));
}

absl::StatusOr<std::string> ZipReader::Read(const ZipMember& member) {
  if (member.method != 0 && member.method != 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("its member ", member.name, " is compressed by method ", member.method, "; save it with NumPy"));
  }
  if (!CanHaveItsSizes(member)) return Broken(member, "claims a size that it cannot have");
  const absl::StatusOr<std::string> header = ReadZipBytes(*in_, member.offset, kLocalBytes, "a member's header");
  if (!header.ok()) return header.status();
  if (ZipNumber(*header, 0, 4) != kLocalMark) return Broken(member, "is not where the directory says");
  const auto skipped = static_cast<std::int64_t>(ZipNumber(*header, 26, 2) + ZipNumber(*header, 28, 2));
  absl::StatusOr<std::string> packed = ReadZipBytes(*in_, member.offset + kLocalBytes + skipped, member.packed_bytes,
                                                    absl::StrCat("its member ", member.name));
  if (!packed.ok()) return packed.status();
  absl::StatusOr<std::string> bytes = member.method == 0 ? std::move(packed) : Inflate(member, *packed);
  if (!bytes.ok()) return bytes.status();
  if (static_cast<std::int64_t>(bytes->size()) != member.bytes) return Broken(member, "is shorter than it says");
  if (Checksum(*bytes) != member.crc32) return Broken(member, "is damaged: its checksum differs");
  return bytes;
}

absl::StatusOr<std::string> FormatZip(const std::vector<std::pair<std::string, std::string>>& members) {
  std::string out, directory;
  for (const auto& [name, contents] : members) {
    const std::size_t offset = out.size();
    if (static_cast<std::int64_t>(offset + contents.size()) >= kMaxArchiveBytes - (1 << 20)) {
      return absl::InvalidArgumentError("an archive of 4 GiB or more is not written; write a .safetensors file");
    }
    Append(kLocalMark, 4, &out);
    AppendFacts(name, contents, &out);
    absl::StrAppend(&out, name, contents);
    Append(0x02014b50, 4, &directory);
    Append(20, 2, &directory);
    AppendFacts(name, contents, &directory);
    Append(0, 6, &directory);  // No comment, disk 0, binary.
    Append(0, 4, &directory);
    Append(offset, 4, &directory);
    directory.append(name);
  }
  const std::size_t begin = out.size();
  out.append(directory);
  Append(0x06054b50, 4, &out);
  Append(0, 4, &out);
  Append(members.size(), 2, &out);
  Append(members.size(), 2, &out);
  Append(directory.size(), 4, &out);
  Append(begin, 4, &out);
  Append(0, 2, &out);
  return out;
}

}  // namespace attend::client
