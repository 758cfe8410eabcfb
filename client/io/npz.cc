#include "client/io/npz.h"

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/io/npy.h"
#include "client/io/stream.h"

namespace attend::client {
namespace {

constexpr char kExtension[] = ".npy";

}  // namespace

absl::StatusOr<NpzReader> NpzReader::Open(const std::string& path) {
  absl::StatusOr<std::ifstream> in = OpenFile(path);
  if (!in.ok()) return in.status();
  return Create(std::make_unique<std::ifstream>(*std::move(in)), path);
}

absl::StatusOr<NpzReader> NpzReader::Create(std::unique_ptr<std::istream> in, const std::string& name) {
  absl::StatusOr<ZipReader> archive = ZipReader::Create(std::move(in));
  if (!archive.ok()) return Annotate(name, archive.status());
  return NpzReader(*std::move(archive), name);
}

absl::StatusOr<Tensor> NpzReader::Read(const std::string& name) {
  for (const ZipMember& member : archive_.members()) {
    if (member.name != absl::StrCat(name, kExtension)) continue;
    absl::StatusOr<std::string> bytes = archive_.Read(member);
    if (!bytes.ok()) return Annotate(name_, bytes.status());
    std::istringstream in(*std::move(bytes));
    absl::StatusOr<Tensor> tensor = ReadNpy(in);
    if (!tensor.ok()) return Annotate(absl::StrCat(name_, ":", name), tensor.status());
    if (in.peek() == std::istringstream::traits_type::eof()) return tensor;
    return absl::InvalidArgumentError(absl::StrCat(name_, ":", name, ": more bytes follow the .npy array"));
  }
  return absl::NotFoundError(
      absl::StrCat(name_, " has no array '", name, "'; there are: ", absl::StrJoin(Names(), ", ")));
}

std::vector<std::string> NpzReader::Names() const {
  std::vector<std::string> names;
  for (const ZipMember& member : archive_.members()) {
    if (!absl::EndsWith(member.name, kExtension)) continue;
    names.push_back(member.name.substr(0, member.name.size() - (sizeof(kExtension) - 1)));
  }
  return names;
}

absl::StatusOr<std::string> FormatNpz(absl::Span<const NamedTensor> tensors) {
  std::vector<std::pair<std::string, std::string>> members;
  for (const NamedTensor& entry : tensors) {
    absl::StatusOr<std::string> file = FormatNpy(entry.tensor);
    if (!file.ok()) return file.status();
    members.emplace_back(absl::StrCat(entry.name, kExtension), *std::move(file));
  }
  return FormatZip(members);
}

}  // namespace attend::client
