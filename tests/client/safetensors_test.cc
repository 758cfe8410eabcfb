// Guards the .safetensors reader: a file that breaks any rule of the format is refused, with a reason.
#include "client/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Length(std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return bytes;
}

std::string File(const std::string& header, const std::string& data) { return Length(header.size()) + header + data; }

absl::StatusOr<SafetensorsReader> Open(const std::string& file) {
  return SafetensorsReader::Create(std::make_unique<std::istringstream>(file), "test");
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  absl::StatusOr<SafetensorsReader> file = Open(File(
      R"({"__metadata__":{"a":"b"},"y":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},)"
      R"("x":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"empty":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},)"
      R"("scalar":{"dtype":"U8","shape":[],"data_offsets":[12,13]}}   )",
      "abcdABCDEFGH!"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->Names(), ElementsAre("empty", "scalar", "x", "y"));
  EXPECT_EQ(file->header().metadata.at("a"), "b");
  EXPECT_EQ(file->Read("x")->bytes(), "abcd");
  EXPECT_EQ(file->Read("x")->shape(), (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(file->Read("y")->bytes(), "ABCDEFGH");
  EXPECT_EQ(file->Read("y")->type(), ElementType::kInt64);
  EXPECT_EQ(file->Read("empty")->num_elements(), 0);
  EXPECT_EQ(file->Read("scalar")->bytes(), "!");
  EXPECT_THAT(std::string(file->Read("z").status().message()), HasSubstr("there are: empty, scalar, x, y"));
}

TEST(Safetensors, AnEmptyFileOfNoTensorsIsValid) { EXPECT_TRUE(Open(File("{}", "")).ok()); }

TEST(Safetensors, RefusesDamagedFilesAndSaysWhy) {
  const auto one = [](const std::string& fields) { return File(R"({"x":{)" + fields + "}}", "abcd"); };
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  ASSERT_TRUE(Open(one(good)).ok());
  const struct {
    const char* name;
    std::string file;
    const char* message;
  } cases[] = {
      {"empty", "", "incomplete"},
      {"length cut", std::string("\x02\0\0", 3), "incomplete"},
      {"header cut", File("{}", "").substr(0, 9), "only 1 follow"},
      {"length beyond the file", Length(100) + "{}", "only 2 follow"},
      {"length beyond 63 bits", Length(~std::uint64_t{0}) + "{}", "its header would have 18446744073709551615 bytes"},
      {"no header", Length(0), "does not begin with '{'"},
      {"leading space", File(" {}", ""), "does not begin with '{'"},
      {"byte order mark", File("\xEF\xBB\xBF{}", ""), "does not begin with '{'"},
      {"an array", File("[]", ""), "does not begin with '{'"},
      {"padded with newlines", File("{}\n\n", ""), "does not end with '}'"},
      {"two documents", File("{}{}", ""), "not JSON"},
      {"not JSON", File("{x}", ""), "not JSON"},
      {"not UTF-8", File("{\"\xff\":{" + good + "}}", "abcd"), "not JSON in UTF-8"},
      {"comment", File("{/**/}", ""), "not JSON"},
      {"tensor twice", File(R"({"x":{)" + good + R"(},"x":{)" + good + "}}", "abcd"), "'x' comes twice"},
      {"tensor twice by escape", File(R"({"x":{)" + good + R"(},"\u0078":{)" + good + "}}", "abcd"), "'x' comes twice"},
      {"metadata twice", File(R"({"__metadata__":{},"__metadata__":{}})", ""), "'__metadata__' comes twice"},
      {"metadata key twice", File(R"({"__metadata__":{"a":"b","a":"c"}})", ""), "'a' of '__metadata__' comes twice"},
      {"metadata number", File(R"({"__metadata__":{"a":1}})", ""), "a number stands"},
      {"metadata nested", File(R"({"__metadata__":{"a":{}}})", ""), "an object stands"},
      {"metadata null", File(R"({"__metadata__":null})", ""), "a null stands"},
      {"dtype twice", one(good + R"(,"dtype":"F32")"), "'dtype' of 'x' comes twice"},
      {"unknown key", one(good + R"(,"more":1)"), "unknown key 'more'"},
      {"dtype missing", one(R"("shape":[1],"data_offsets":[0,4])"), "lacks one of"},
      {"shape missing", one(R"("dtype":"F32","data_offsets":[0,4])"), "lacks one of"},
      {"offsets missing", one(R"("dtype":"F32","shape":[1])"), "lacks one of"},
      {"tensor is a number", File(R"({"x":1})", ""), "a number stands"},
      {"tensor is an array", File(R"({"x":[]})", ""), "an array stands"},
      {"tensor is a boolean", File(R"({"x":true})", ""), "a boolean stands"},
      {"dtype is a number", one(R"("dtype":1,"shape":[1],"data_offsets":[0,4])"), "a number stands"},
      {"unknown dtype", one(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), "unknown dtype 'F33'"},
      {"lower-case dtype", one(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"), "unknown dtype 'f32'"},
      {"shape is a string", one(R"("dtype":"F32","shape":"1","data_offsets":[0,4])"), "a string stands"},
      {"negative axis", one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "negative number"},
      {"fractional axis", one(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "not an integer"},
      {"axis over 64 bits", one(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])"), "too large"},
      {"axis over 63 bits", one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])"), "too large"},
      {"product overflows", one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"),
       "more elements than any memory"},
      {"product wraps to the right size", one(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"),
       "more elements than any memory"},
      {"three offsets", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "not two numbers"},
      {"one offset", one(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "not two numbers"},
      {"offsets backwards", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "has 4 bytes"},
      {"too few bytes", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,3])"), "has 4 bytes"},
      {"too many bytes", one(R"("dtype":"F32","shape":[0],"data_offsets":[0,4])"), "has 0 bytes"},
      {"half a byte", File(R"({"x":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", "a"), "end on a byte"},
      {"beyond the end", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), "end at byte 8"},
      {"data left over", File(R"({"x":{)" + good + "}}", "abcd!"), "end at byte 4"},
      {"data without tensors", File("{}", "a"), "end at byte 0"},
      {"hole at the start", File(R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})", "abcde"),
       "byte 0 comes next"},
      {"hole between",
       File(
           R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"y":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
           "abc"),
       "byte 1 comes next"},
      {"overlap",
       File(
           R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           "abc"),
       "byte 2 comes next"},
      {"same bytes twice",
       File(
           R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
           "ab"),
       "byte 2 comes next"},
  };
  for (const auto& test : cases) {
    const absl::StatusOr<SafetensorsReader> file = Open(test.file);
    ASSERT_FALSE(file.ok()) << test.name;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(test.message)) << test.name;
  }
}

TEST(Safetensors, DeepNestingIsRefusedAtItsFirstLevel) {
  const std::string deep(500000, '[');
  EXPECT_THAT(std::string(Open(File(R"({"x":)" + deep + "}", "")).status().message()), HasSubstr("an array stands"));
}

TEST(Safetensors, TheHeaderLimitIsExact) {
  const auto padded = [](std::int64_t bytes) { return File("{}" + std::string(bytes - 2, ' '), ""); };
  EXPECT_TRUE(Open(padded(SafetensorsLimits().max_header_bytes)).ok());
  EXPECT_THAT(std::string(Open(padded(SafetensorsLimits().max_header_bytes + 1)).status().message()),
              HasSubstr("at most 1048576"));
}

TEST(Safetensors, TheNumberOfTensorsIsBounded) {
  const auto tensors = [](std::int64_t count) {
    std::string header = "{";
    for (std::int64_t i = 0; i < count; ++i) {
      header += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    }
    return File(header + R"(,"__metadata__":{}})", "");
  };
  EXPECT_TRUE(Open(tensors(SafetensorsLimits().max_tensors)).ok());
  EXPECT_THAT(std::string(Open(tensors(SafetensorsLimits().max_tensors + 1)).status().message()),
              HasSubstr("more than 16384 tensors"));
}

TEST(Safetensors, LimitsAreTheCallers) {
  const std::string file = File(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "a");
  const std::int64_t header_bytes = static_cast<std::int64_t>(file.size()) - 9;
  EXPECT_TRUE(ParseSafetensors(file, {.max_header_bytes = header_bytes, .max_tensors = 1}).ok());
  EXPECT_FALSE(ParseSafetensors(file, {.max_header_bytes = header_bytes - 1}).ok());
  EXPECT_FALSE(ParseSafetensors(file, {.max_tensors = 0}).ok());
}

TEST(Safetensors, TypesOfFewerBitsThanAByteMustEndOnOne) {
  for (const auto& [dtype, count, bytes] : {std::tuple{"F4", 2, 1}, {"F6_E2M3", 4, 3}, {"F6_E3M2", 4, 3}}) {
    const auto file = [dtype = dtype](int elements, int size) {
      return File(std::string(R"({"x":{"dtype":")") + dtype + R"(","shape":[)" + std::to_string(elements) +
                      R"(],"data_offsets":[0,)" + std::to_string(size) + "]}}",
                  std::string(size, 'a'));
    };
    EXPECT_TRUE(Open(file(count, bytes)).ok()) << dtype;
    EXPECT_FALSE(Open(file(count - 1, bytes)).ok()) << dtype;
  }
}

TEST(Safetensors, ATypeThatCannotBeRepresentedIsSkippedUntilItIsRead) {
  absl::StatusOr<SafetensorsReader> file = Open(File(
      R"({"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
      "abc"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Read("y")->bytes(), "c");
  EXPECT_THAT(std::string(file->Read("x").status().message()), HasSubstr("F8_E4M3"));
}

TEST(Safetensors, WhatIsWrittenIsReadBack) {
  const float values[] = {1, -2, 3.5f, 0, 1e-30f, 7};
  const std::vector<NamedTensor> tensors = {{"b \"quoted\" \xC3\xA9", Tensor::FromFloats({2, 3}, values)},
                                            {"a", *Tensor::Create(ElementType::kBool, {3}, std::string("\1\0\1", 3))},
                                            {"none", Tensor()}};
  const absl::StatusOr<std::string> contents = FormatSafetensors(tensors);
  ASSERT_TRUE(contents.ok()) << contents.status();
  absl::StatusOr<SafetensorsReader> file = Open(*contents);
  ASSERT_TRUE(file.ok()) << file.status();
  for (const NamedTensor& tensor : tensors) {
    const absl::StatusOr<Tensor> read = file->Read(tensor.name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->bytes(), tensor.tensor.bytes());
    EXPECT_EQ(read->shape(), tensor.tensor.shape());
    EXPECT_EQ(read->type(), tensor.tensor.type());
  }
  EXPECT_EQ(static_cast<unsigned char>((*contents)[0]) % 8, 0) << "the data must begin at a multiple of 8 bytes";
}

TEST(Safetensors, NamesThatWouldMakeTheFileInvalidAreRefused) {
  for (const std::vector<std::string>& names :
       {std::vector<std::string>{"x", "x"}, {"__metadata__"}, {std::string("\xff")}}) {
    std::vector<NamedTensor> tensors;
    for (const std::string& name : names) tensors.push_back({name, Tensor()});
    EXPECT_FALSE(FormatSafetensors(tensors).ok()) << names[0];
  }
}

// A file made elsewhere (PyTorch) is read as its own metadata describes it.
TEST(Safetensors, ReadsTheGoldenFiles) {
  absl::StatusOr<SafetensorsReader> file =
      SafetensorsReader::Open(std::string(ATTEND_TEST_DATA) + "/golden/notebook_5x64.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Read("x")->Describe(), "float32 [5, 64]");
  EXPECT_EQ(file->Read("output_f64")->Describe(), "float64 [5, 64]");
  EXPECT_EQ(file->header().metadata.at("torch_manual_seed"), "42");
  const std::vector<double> weights = file->Read("attention_weights_f64")->ToDoubles();
  for (int row = 0; row < 5; ++row) {
    double sum = 0;
    for (int column = 0; column < 5; ++column) sum += weights[row * 5 + column];
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

}  // namespace
}  // namespace attend::client
