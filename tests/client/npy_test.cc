// Guards the .npy reader against damaged and hostile files, and against NumPy's own idea of what a file means.
#include "client/io/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "client/io/npy_header.h"
#include "tests/support/temporary_folder.h"

namespace attend::client {
namespace {

using ::testing::HasSubstr;

// A .npy file with any header and any bytes behind it.
std::string File(const std::string& header, const std::string& data, int major = 1) {
  std::string file("\x93NUMPY", 6);
  file.push_back(static_cast<char>(major));
  file.push_back('\0');
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) file.push_back(static_cast<char>(header.size() >> (8 * i) & 0xff));
  return file + header + data;
}

absl::StatusOr<Tensor> Read(const std::string& file) {
  std::istringstream in(file);
  return ReadNpy(in);
}

std::string Header(const std::string& shape, const std::string& descr = "<f4") {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Npy : public ::testing::Test {
 protected:
  const attend::testing::TemporaryFolder folder_;
  const std::filesystem::path directory_ = folder_.path();
};

TEST_F(Npy, ReadsEveryHeaderVersionThatNumpyWrites) {
  const std::string data(24, 'x');
  for (const int major : {1, 2, 3}) {
    const absl::StatusOr<Tensor> tensor = Read(File(Header("(2, 3)"), data, major));
    ASSERT_TRUE(tensor.ok()) << "version " << major << ": " << tensor.status();
    EXPECT_EQ(tensor->shape(), (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(tensor->bytes(), data);
  }
}

TEST_F(Npy, RefusesDamagedFilesAndSaysWhy) {
  const struct {
    const char* name;
    std::string file;
    const char* message;
  } cases[] = {
      {"empty", "", "incomplete"},
      {"magic cut", "\x93NUM", "incomplete"},
      {"other magic", "PK\x03\x04garbage", "does not begin with"},
      {"version 0", File(Header("(1,)"), "1234", 0), "version is 0.0"},
      {"version 4", File(Header("(1,)"), "1234", 4), "version is 4.0"},
      {"length cut", std::string("\x93NUMPY\x01\x00\x10", 9), "incomplete"},
      {"header cut", File(Header("(1,)"), "").substr(0, 30), "incomplete"},
      {"array cut", File(Header("(2,)"), "1234567"), "expected 8 bytes, found 7"},
      {"no array", File(Header("(2,)"), ""), "expected 8 bytes, found 0"},
      {"not a dictionary", File("[1, 2]", ""), "does not begin with '{'"},
      {"empty dictionary", File("{}", ""), "must all be given"},
      {"key missing", File("{'descr': '<f4', 'shape': (1,)}", "1234"), "must all be given"},
      {"key twice", File("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "1234"),
       "'descr' is unknown or comes twice"},
      {"unknown key", File("{'descr': '<f4', 'x': 1, 'fortran_order': False, 'shape': (1,)}", "1234"),
       "'x' is unknown"},
      {"no colon", File("{'descr' '<f4'}", ""), "a colon"},
      {"no comma", File("{'descr': '<f4' 'shape': (1,)}", ""), "a comma"},
      {"string not closed", File("{'descr': '<f4", ""), "not a string"},
      {"number as bool", File("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", ""), "True or False"},
      {"shape is a number", File(Header("(5)"), ""), "tuple of integers"},
      {"shape is a list", File(Header("[5]"), ""), "tuple of integers"},
      {"negative axis", File(Header("(-1,)"), ""), "tuple of integers"},
      {"fractional axis", File(Header("(1.5,)"), ""), "tuple of integers"},
      {"axis over 63 bits", File(Header("(9223372036854775808,)"), ""), "tuple of integers"},
      {"product overflows", File(Header("(4294967296, 4294967296)"), ""), "more elements than any memory"},
      {"bytes overflow", File(Header("(4611686018427387904,)"), ""), "more elements than any memory"},
      {"33 axes",
       File(Header("(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "
                   "1, 1, 1, 1)"),
            "1234"),
       "33 axes"},
      {"text behind the dictionary", File(Header("(1,)") + "x", "1234"), "follows the dictionary"},
      {"pickled objects", File(Header("(1,)", "|O"), "12345678"), "pickle"},
      {"structured", File("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "1234"), "structured"},
      {"big-endian", File(Header("(1,)", ">f4"), "1234"), "big-endian"},
      {"complex", File(Header("(1,)", "<c8"), "12345678"), "'<c8' is not supported"},
  };
  for (const auto& test : cases) {
    const absl::StatusOr<Tensor> tensor = Read(test.file);
    ASSERT_FALSE(tensor.ok()) << test.name;
    EXPECT_THAT(std::string(tensor.status().message()), HasSubstr(test.message)) << test.name;
  }
}

TEST_F(Npy, ChecksTheHeaderLengthBeforeReadingIt) {
  const std::string longest = Header("(1,)") + std::string(kMaxNpyHeaderBytes - Header("(1,)").size(), ' ');
  EXPECT_TRUE(Read(File(longest, "1234")).ok());
  EXPECT_THAT(std::string(Read(File(longest + " ", "1234")).status().message()), HasSubstr("claims 10001 bytes"));
  // Four gigabytes are claimed and nothing follows: the claim alone is refused.
  const std::string liar("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12);
  EXPECT_THAT(std::string(Read(liar).status().message()), HasSubstr("claims 4294967295 bytes"));
}

TEST_F(Npy, AHugeClaimedArrayIsRefusedWithoutBeingAllocated) {
  // 2^61 bytes: allocating them would throw.
  const absl::StatusOr<Tensor> tensor = Read(File(Header("(576460752303423488,)"), "1234"));
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(Npy, ZeroDimensionalAndEmptyArraysAreRead) {
  EXPECT_EQ(Read(File(Header("()"), "1234"))->shape().size(), 0u);
  EXPECT_EQ(Read(File(Header("(0, 5)"), ""))->num_elements(), 0);
}

TEST_F(Npy, AFileWithMoreThanOneArrayIsRefused) {
  const std::filesystem::path path = directory_ / "two.npy";
  std::ofstream(path, std::ios::binary) << File(Header("(1,)"), "1234") << "x";
  EXPECT_THAT(std::string(ReadNpyFile(path).status().message()), HasSubstr("more bytes follow"));
  EXPECT_EQ(ReadNpyFile(directory_ / "absent.npy").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadNpyFile(directory_).status().code(), absl::StatusCode::kNotFound);
}

// NumPy writes each file twice: as .npy and as the bare bytes in C order. What is read must equal the second, and what
// is written must be what NumPy would have written.
TEST_F(Npy, AgreesWithNumpy) {
  const std::string script = R"(
import sys, numpy as np
d = sys.argv[1]
r = np.random.default_rng(7)
shapes = [(), (0,), (1,), (7,), (2, 3), (3, 1, 4), (2, 3, 4, 5), (2, 0, 3)]
for t in ['<f4', '<f8', '<f2', '|b1', '|i1', '<i2', '<i4', '<i8', '|u1', '<u2', '<u4', '<u8']:
  for i, s in enumerate(shapes):
    for order in 'CF':
      a = np.asarray(r.integers(0, 2 if t == '|b1' else 100, s).astype(t), order=order)
      stem = f'{d}/{t[1:]}_{i}_{order}'
      np.save(stem + '.npy', a)
      open(stem + '.raw', 'wb').write(a.tobytes('C'))
)";
  std::ofstream(directory_ / "make.py") << script;
  const std::string command = "/usr/bin/python3 " + (directory_ / "make.py").string() + " " + directory_.string();
  ASSERT_EQ(std::system(command.c_str()), 0);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    if (entry.path().extension() != ".npy") continue;
    ++files;
    const absl::StatusOr<Tensor> tensor = ReadNpyFile(entry.path());
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    std::filesystem::path raw = entry.path();
    EXPECT_EQ(tensor->bytes(), ReadAll(raw.replace_extension(".raw"))) << entry.path();
    const bool fortran = entry.path().stem().string().back() == 'F';
    if (!fortran) {
      EXPECT_EQ(*FormatNpy(*tensor), ReadAll(entry.path())) << entry.path();
    }
  }
  EXPECT_EQ(files, 12 * 8 * 2);
}

TEST_F(Npy, BFloat16IsNotWrittenAsSomethingElse) {
  const absl::StatusOr<Tensor> tensor = Tensor::Create(ElementType::kBFloat16, {1}, "ab");
  EXPECT_THAT(std::string(FormatNpy(*tensor).status().message()), HasSubstr("bfloat16"));
}

}  // namespace
}  // namespace attend::client
