// Guards the .npz reader against damaged and hostile archives. That NumPy and attend read each other's files, asks
// cli_inputs_test.py.
#include "client/io/npz.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "client/io/zip.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<NpzReader> Open(const std::string& bytes) {
  return NpzReader::Create(std::make_unique<std::istringstream>(bytes), "x.npz");
}

std::string TwoArrays() {
  return *FormatNpz(
      std::vector<NamedTensor>{{"a", Tensor::FromFloats({2, 2}, {1, 2, 3, 4})}, {"b", Tensor::FromFloats({1}, {5})}});
}

// The message with which reading `a` of the archive fails.
std::string Failure(const std::string& bytes) {
  absl::StatusOr<NpzReader> file = Open(bytes);
  if (!file.ok()) return std::string(file.status().message());
  return std::string(file->Read("a").status().message());
}

void Put(std::string* bytes, std::size_t at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) (*bytes)[at + i] = static_cast<char>(value >> (8 * i));
}

TEST(Npz, WhatIsWrittenIsRead) {
  absl::StatusOr<NpzReader> file = Open(TwoArrays());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->Names(), ElementsAre("a", "b"));
  const absl::StatusOr<Tensor> a = file->Read("a");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_THAT(a->floats(), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(file->Read("c").status().message(), "x.npz has no array 'c'; there are: a, b");
  EXPECT_EQ(TwoArrays(), TwoArrays()) << "no time stamps";
}

TEST(Npz, EveryBitOfAnArrayIsGuarded) {
  const std::string good = TwoArrays();
  const std::size_t data = good.find("NUMPY") - 1;
  for (const std::size_t at : {data, data + 90, data + 128, data + 143}) {
    std::string bad = good;
    bad[at] ^= 4;
    EXPECT_THAT(Failure(bad), HasSubstr("its member a.npy is damaged: its checksum differs")) << at;
  }
}

TEST(Npz, SizesThatCannotBeAreRefusedBeforeTheyAreUsed) {
  const std::string good = TwoArrays();
  const std::size_t entry = good.find("PK\1\2");
  for (const std::size_t field : {20, 24}) {  // Packed, unpacked.
    std::string bad = good;
    Put(&bad, entry + field, 0x7fffffff);
    EXPECT_THAT(Failure(bad), HasSubstr("claims a size that it cannot have"));
  }
  std::string bad = good;
  bad[entry + 10] = 8;  // Deflated, it says.
  EXPECT_THAT(Failure(bad), HasSubstr("its member a.npy is"));
  Put(&bad, entry + 24, 0x7fffffff);
  EXPECT_THAT(Failure(bad), HasSubstr("claims a size that it cannot have"));
  bad = good;
  Put(&bad, entry + 42, 0x7fffff00);  // Where it is.
  EXPECT_THAT(Failure(bad), HasSubstr("a member's header is incomplete"));
}

TEST(Npz, SizesOf64BitsAreComparedAsTheyAre) {
  std::string bad = TwoArrays();
  const std::size_t entry = bad.find("PK\1\2"), end = bad.rfind("PK\5\6"), extra = entry + 46 + 5;  // Behind `a.npy`.
  Put(&bad, entry + 20, 0xffffffff);
  Put(&bad, entry + 24, 0xffffffff);
  Put(&bad, entry + 30, 20);
  Put(&bad, end + 12, static_cast<std::uint32_t>(end - entry + 20));
  // Both sizes are 2^60 bytes; so many, deflated, can stand for more than int64 counts.
  bad.insert(extra, std::string("\1\0\x10\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x10", 20));
  for (const char method : {0, 8}) {
    bad[entry + 10] = method;
    EXPECT_THAT(Failure(bad), HasSubstr("its member a.npy claims a size that it cannot have"));
  }
}

TEST(Npz, WhatIsNoArchiveIsSaid) {
  const std::string good = TwoArrays();
  for (const std::string& bytes :
       {std::string(), std::string("hello"), std::string(70000, 'x'), good.substr(0, good.size() - 1)}) {
    EXPECT_THAT(Failure(bytes), HasSubstr("x.npz: it is no ZIP archive, or it was cut off"));
  }
  std::string bad = good;
  Put(&bad, good.rfind("PK\5\6") + 16, 0x00ffffff);  // Where the directory is.
  EXPECT_THAT(Failure(bad), HasSubstr("its directory is not in it"));
  bad = good;
  bad[good.find("PK\1\2") + 8] = 1;
  EXPECT_THAT(Failure(bad), HasSubstr("is encrypted"));
  bad = good;
  bad[good.find("PK\1\2") + 10] = 14;
  EXPECT_THAT(Failure(bad), HasSubstr("is compressed by method 14; save it with NumPy"));
}

TEST(Npz, TwoArraysOfOneNameAreRefused) {
  const std::string twice = *FormatZip({{"a.npy", "x"}, {"a.npy", "y"}});
  EXPECT_THAT(Failure(twice), HasSubstr("two members are called a.npy"));
}

}  // namespace
}  // namespace attend::client
