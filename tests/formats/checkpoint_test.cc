// Guards how checkpoints are opened: alone, sharded and in memory, and what is refused about them.
#include "formats/safetensors/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/status_message.h"
#include "tests/support/temporary_folder.h"

namespace attend::formats {
namespace {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::Message;
using ::attend::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string FileOf(const std::string& name, const std::string& bytes) {
  return CheckpointBuilder().Add(name, {static_cast<std::int64_t>(bytes.size())}, bytes, "U8").Build();
}

std::string BytesOf(const Checkpoint& checkpoint, const std::string& name) {
  const CheckpointTensor* const tensor = checkpoint.Find(name);
  if (tensor == nullptr) return "missing";
  return {static_cast<const char*>(tensor->data), static_cast<std::size_t>(tensor->bytes)};
}

TEST(Checkpoint, OneFileIsReadWhereItIsMapped) {
  const TemporaryFolder folder;
  const auto checkpoint = Checkpoint::Open(folder.Write(
      "model.safetensors",
      CheckpointBuilder().Add("a", {2}, "xy", "U8").Add("b", {1, 1}, "abcd", "F32").Metadata("k", "v").Build()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(BytesOf(*checkpoint, "a"), "xy");
  EXPECT_EQ(BytesOf(*checkpoint, "b"), "abcd");
  EXPECT_EQ(checkpoint->Find("b")->dtype, "F32");
  EXPECT_EQ(checkpoint->Find("b")->shape, (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(checkpoint->Find("c"), nullptr);
  EXPECT_EQ(checkpoint->metadata().at("k"), "v");
}

TEST(Checkpoint, ACopyKeepsTheMappingAlive) {
  const TemporaryFolder folder;
  absl::StatusOr<Checkpoint> first = Checkpoint::Open(folder.Write("m.safetensors", FileOf("a", "xyz")));
  ASSERT_TRUE(first.ok());
  const Checkpoint second = *first;
  first = absl::UnknownError("gone");
  EXPECT_EQ(BytesOf(second, "a"), "xyz");
}

TEST(Checkpoint, ShardsAreFoundThroughTheirIndex) {
  const TemporaryFolder folder;
  folder.Write("one.safetensors", FileOf("a", "xy"));
  folder.Write("two.safetensors", CheckpointBuilder().Add("b", {1}, "b", "U8").Add("c", {1}, "c", "U8").Build());
  const auto checkpoint = Checkpoint::Open(
      folder.Write("model.safetensors.index.json",
                   R"({"metadata":{"total_size":3},"weight_map":{"a":"one.safetensors","b":"two.safetensors",
                       "c":"two.safetensors"}})"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors().size(), 3U);
  EXPECT_EQ(BytesOf(*checkpoint, "a"), "xy");
  EXPECT_EQ(BytesOf(*checkpoint, "b"), "b");
}

// They may be the norms of a layer whose projections it names: transformers takes them too.
TEST(Checkpoint, AnIndexHidesNoTensorOfItsShards) {
  const TemporaryFolder folder;
  folder.Write("one.safetensors", FileOf("q_proj", "xy"));
  folder.Write("two.safetensors",
               CheckpointBuilder().Add("k_proj", {1}, "b", "U8").Add("q_norm", {1}, "c", "U8").Build());
  const std::string index = folder.Write("model.safetensors.index.json",
                                         R"({"weight_map":{"q_proj":"one.safetensors", "k_proj":"two.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(index);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(BytesOf(*checkpoint, "q_norm"), "c");
}

TEST(Checkpoint, NoTwoShardsHaveATensorOfTheSameName) {
  const TemporaryFolder folder;
  folder.Write("one.safetensors", CheckpointBuilder().Add("a", {1}, "a", "U8").Add("both", {1}, "b", "U8").Build());
  folder.Write("two.safetensors", CheckpointBuilder().Add("c", {1}, "c", "U8").Add("both", {1}, "d", "U8").Build());
  for (const char* listed : {R"(, "both":"one.safetensors")", R"(, "both":"two.safetensors")", ""}) {
    const std::string index =
        folder.Write("model.safetensors.index.json",
                     absl::StrCat(R"({"weight_map":{"a":"one.safetensors", "c":"two.safetensors")", listed, "}}"));
    EXPECT_THAT(Message(Checkpoint::Open(index).status()),
                HasSubstr("two.safetensors: it has the tensor 'both', and so has another file of"));
  }
}

TEST(Checkpoint, AnIndexReachesNoFileButThoseBesideIt) {
  const TemporaryFolder folder;
  folder.Write("outside.safetensors", FileOf("a", "xy"));
  folder.Write("in/inner/deep.safetensors", FileOf("a", "xy"));
  for (const std::string shard : {"../outside.safetensors", "inner/deep.safetensors", "/etc/x.safetensors",
                                  "..\\\\outside.safetensors", "./x.safetensors", "..", ".", ".hidden.safetensors", "",
                                  "outside", "x.safetensors\\u0000", "\\u0000.safetensors"}) {
    const auto opened =
        Checkpoint::Open(folder.Write("in/model.safetensors.index.json", R"({"weight_map":{"a":")" + shard + R"("}})"));
    EXPECT_THAT(Message(opened.status()), HasSubstr("weight_map of 'a' is not the plain name")) << shard;
  }
}

TEST(Checkpoint, RefusesAnIndexThatIsNone) {
  const TemporaryFolder folder;
  folder.Write("one.safetensors", FileOf("a", "xy"));
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {"", "not an index of shards"},
      {"[]", "not an index of shards"},
      {"{}", "not an index of shards"},
      {R"({"weight_map":[]})", "not an index of shards"},
      {R"({"weight_map":{"a":1}})", "not the plain name"},
      {R"({"weight_map":{"a":null}})", "not the plain name"},
      {R"({"weight_map":{"b":"one.safetensors"}})", "there is no tensor 'b'"},
      {R"({"weight_map":{"a":"two.safetensors"}})", "two.safetensors: No such file"},
  };
  for (const auto& test : cases) {
    const auto opened = Checkpoint::Open(folder.Write("x.index.json", test.text));
    EXPECT_THAT(Message(opened.status()), HasSubstr(test.message)) << test.text;
  }
}

TEST(Checkpoint, FilesOfOtherFormatsAreNamed) {
  const TemporaryFolder folder;
  const struct {
    std::string begin;
    const char* what;
  } cases[] = {
      {std::string("\x93NUMPY\x01\0v\0", 10), "a NumPy array (.npy); safetensors.numpy.save_file"},
      {std::string("PK\x03\x04\x14\0\0\0\0\0", 10), "a zip archive"},
      {std::string("\x80\x02}q\0X\x06\0\0\0", 10), "a Python pickle"},
      {std::string("\x89HDF\r\n\x1a\n\0\0", 10), "an HDF5 file"},
      {std::string("GGUF\x03\0\0\0\x23\x01", 10), "a GGUF file"},
      {"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; git lfs pull"},
      {R"({"metadata": {"total_size": 1}})", "JSON text; of a sharded model"},
      {"<!DOCTYPE html>", "this is none, or a damaged one: its header would have"},
  };
  for (const auto& test : cases) {
    const std::string file = test.begin + std::string(100, 'x');
    EXPECT_THAT(Message(Checkpoint::Open(folder.Write("x.safetensors", file)).status()),
                AllOf(HasSubstr("x.safetensors: expected a .safetensors file, and this is"), HasSubstr(test.what)));
    EXPECT_THAT(Message(Checkpoint::FromBytes(file, nullptr).status()), HasSubstr(test.what));
  }
}

TEST(Checkpoint, AHeaderWhoseLengthLooksLikeAnotherFormatIsRead) {
  // 0x7b is '{'; 0x280 is how a pickle begins.
  for (const std::size_t length : {0x7b, 0x280}) {
    std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
    header.resize(length, ' ');
    std::string file(8, '\0');
    file[0] = static_cast<char>(length & 0xff);
    file[1] = static_cast<char>(length >> 8);
    const absl::StatusOr<Checkpoint> read = Checkpoint::FromBytes(file + header + "xyz", nullptr);
    EXPECT_TRUE(read.ok()) << read.status();
  }
}

TEST(Checkpoint, ErrorsNameTheFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(Message(Checkpoint::Open("/nowhere/x.safetensors").status()),
              HasSubstr("cannot open /nowhere/x.safetensors: No such file"));
  EXPECT_THAT(Message(Checkpoint::Open(folder.Write("x.bin", "")).status()), HasSubstr("must end in .safetensors"));
  EXPECT_THAT(Message(Checkpoint::Open(folder.Write("empty.safetensors", "")).status()),
              HasSubstr("empty.safetensors: the .safetensors header length is incomplete"));
  const std::string whole = FileOf("a", "xyz");
  EXPECT_THAT(Message(Checkpoint::Open(folder.Write("cut.safetensors", whole.substr(0, whole.size() - 1))).status()),
              HasSubstr("cut.safetensors: the .safetensors file has 2 bytes of data, but its tensors end at byte 3"));
  folder.Write("d.safetensors/file", "");
  EXPECT_THAT(Message(Checkpoint::Open(folder.path() + "/d.safetensors").status()), HasSubstr("not a regular file"));
  const std::string pipe = folder.path() + "/pipe.safetensors";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(Message(Checkpoint::Open(pipe).status()), HasSubstr("not a regular file"));
}

TEST(Checkpoint, LimitsAreTheCallers) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("m.safetensors", FileOf("a", "xyz"));
  EXPECT_THAT(Message(Checkpoint::Open(path, {.max_header_bytes = 10}).status()), HasSubstr("at most 10 are read"));
}

}  // namespace
}  // namespace attend::formats
