// Which names layers may have, and that no name leads out of its folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/error.h"
#include "server/layers/layer_registry.h"

namespace attend::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(LayerNameTest, AcceptsWhatTheContractNames) {
  for (const std::string& name :
       {std::string("a"), std::string("0"), std::string("minilm/0"), std::string("a.b_c-d/e.f"), std::string("a/.b"),
        std::string("a."), std::string(128, 'x'), std::string("llama-3.1/layer/31/attention")}) {
    EXPECT_TRUE(CheckLayerName(name, "name").ok()) << name;
  }
}

class RefusedName : public ::testing::TestWithParam<std::string> {};

TEST_P(RefusedName, IsInvalidArgumentWithTheField) {
  const absl::Status status = CheckLayerName(GetParam(), "header.name");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(status).field, "header.name");
  EXPECT_LT(status.message().size(), 500u);
  for (const char c : status.message()) EXPECT_TRUE(c >= ' ' && c <= '~') << "an unprintable byte in a message";
}

INSTANTIATE_TEST_SUITE_P(Traversal, RefusedName,
                         ::testing::Values("..", "../x", "a/../../x", "/etc/passwd", "a/..", "..%2fx", "a//b", "./a",
                                           "~/a", "a/../b", "\\..\\x"));
INSTANTIATE_TEST_SUITE_P(Others, RefusedName,
                         ::testing::Values("", "A", "a b", "-a", "_a", ".a", "a/", "a%b", "a:b", "a\n", "a\\b",
                                           std::string(129, 'x'), std::string(4096, 'x'), std::string("a\0b", 3),
                                           std::string("\0", 1), std::string("a\0", 2)));
// Letters that look like ours: Cyrillic a, full-width a, full-width slash and dots, division slash, the one-dot leader,
// a zero-width joiner, an overlong slash.
INSTANTIATE_TEST_SUITE_P(LookAlikes, RefusedName,
                         ::testing::Values("\xD0\xB0", "\xEF\xBD\x81",
                                           "a\xEF\xBC\x8F"
                                           "b",
                                           "a/\xEF\xBC\x8E\xEF\xBC\x8E",
                                           "a\xE2\x88\x95"
                                           "b",
                                           "a/\xE2\x80\xA4\xE2\x80\xA4",
                                           "a\xE2\x80\x8D"
                                           "b",
                                           "a\xC0\xAF"
                                           "b"));

TEST(LayerFileNameTest, IsOneComponentAndTellsNamesApart) {
  EXPECT_EQ(LayerFileName({"shared", "minilm/0"}), "minilm%0.layer") << "as versions without tenants wrote it";
  EXPECT_EQ(LayerFileName({"acme", "minilm/0"}), "acme@minilm%0.layer");
  EXPECT_THAT(LayerFileName({"acme", "a/b/c"}), Not(HasSubstr("/")));
  EXPECT_NE(LayerFileName({"shared", "a/b"}), LayerFileName({"shared", "a_b"}));
  EXPECT_NE(LayerFileName({"shared", "a/b"}), LayerFileName({"shared", "a.b"}));
  EXPECT_NE(LayerFileName({"a", "b-c"}), LayerFileName({"a-b", "c"}));
}

TEST(LayerNotFoundTest, NamesTheLayer) {
  const absl::Status status = LayerNotFound("minilm/7", "layer_name");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetErrorDetails(status).reason, "LAYER_NOT_FOUND");
  EXPECT_THAT(GetErrorDetails(status).metadata, ::testing::Contains(::testing::Pair("layer_name", "minilm/7")));
}

}  // namespace
}  // namespace attend::server
