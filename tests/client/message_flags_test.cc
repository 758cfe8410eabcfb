// Flags that a message's descriptor makes: what each type takes, and that what it does not take is refused by name.
#include "client/cli/requests/message_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/App.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "attend/v1/attention_service.pb.h"
#include "attend/v1/layer_service.pb.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A message of type Message with what `arguments` say.
template <typename Message>
absl::StatusOr<Message> Parse(const std::string& arguments, absl::Span<const FlagInfo> table = {}) {
  CLI::App app;
  MessageFlags flags;
  flags.Declare(&app, *Message::descriptor(), table);
  app.parse(arguments);
  Message message;
  if (absl::Status status = flags.Fill(false, &message); !status.ok()) return status;
  return message;
}

template <typename Message>
std::string Refusal(const std::string& arguments, absl::Span<const FlagInfo> table = {}) {
  return std::string(Parse<Message>(arguments, table).status().message());
}

TEST(MessageFlags, EachTypeOfFieldHasAFlag) {
  const auto rotary = Parse<v1::RotaryEmbedding>("--form interleaved --dim 010 --base 500.25");
  ASSERT_TRUE(rotary.ok()) << rotary.status();
  EXPECT_EQ(rotary->form(), v1::ROTARY_FORM_INTERLEAVED);
  EXPECT_EQ(rotary->dim(), 10);
  EXPECT_EQ(rotary->base(), 500.25);
  const auto options =
      Parse<v1::AttentionOptions>("--scale=-0.1 --sliding-window-left 1099511627776 --valid-lengths 3,5");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->scale(), -0.1) << "a double";
  EXPECT_EQ(options->sliding_window_left(), std::int64_t{1} << 40);
  EXPECT_THAT(options->valid_lengths(), ElementsAre(3, 5));
  EXPECT_FALSE(options->has_softcap()) << "what was not given is not set";
  const auto header = Parse<v1::CreateLayerHeader>("--name 'a \"b\" \\n' --replace");
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->name(), "a \"b\" \\n");
  EXPECT_TRUE(header->replace());
}

// As for the second input of a batch whose precision is another one.
TEST(MessageFlags, WhatIsFilledAgainIsAsTheFirstTime) {
  CLI::App app;
  MessageFlags flags;
  flags.Declare(&app, *v1::AttendRequest::descriptor(), {});
  app.parse("--position-offsets 3,5 --layer-name a --position-offset 7");
  v1::AttendRequest message;
  ASSERT_TRUE(flags.Fill(false, &message).ok());
  const std::string once = message.SerializeAsString();
  ASSERT_TRUE(flags.Fill(true, &message).ok());
  EXPECT_THAT(message.position_offsets(), ElementsAre(3, 5));
  EXPECT_EQ(message.SerializeAsString(), once);
}

TEST(MessageFlags, DeprecatedFieldsHaveNoFlag) {
  EXPECT_THROW(Refusal<v1::AttentionOptions>("--float-scale 1"), CLI::ExtrasError);
  EXPECT_THROW(Refusal<v1::LayerConfig>("--float-norm-epsilon 1"), CLI::ExtrasError);
}

TEST(MessageFlags, WhatATypeDoesNotTakeIsRefusedWithTheFlagsName) {
  EXPECT_EQ(Refusal<v1::RotaryEmbedding>("--dim 1.5"), "--dim 1.5: expected an integer");
  EXPECT_THAT(Refusal<v1::RotaryEmbedding>("--dim 2147483648"), HasSubstr("--dim 2147483648: expected"));
  EXPECT_THAT(Refusal<v1::RotaryEmbedding>("--base much"), HasSubstr("--base much: expected"));
  EXPECT_THAT(Refusal<v1::RotaryEmbedding>("--base '1 dim: 3'"), HasSubstr("expected")) << "one field, not two";
  EXPECT_THROW(Refusal<v1::RotaryEmbedding>("--form diagonal"), CLI::ValidationError);
}

TEST(MessageFlags, TheTableRenamesAndBounds) {
  constexpr FlagInfo kTable[] = {{"top_k", "--best", "", "", 8},
                                 {"causal", "--causal", "", "CAUSAL_MODE_BOTTOM_RIGHT"},
                                 {"causal", "--top-left", "", "CAUSAL_MODE_TOP_LEFT"}};
  const auto options = Parse<v1::AttentionOptions>("--best 8 --top-left", kTable);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->top_k(), 8);
  EXPECT_EQ(options->causal(), v1::CAUSAL_MODE_TOP_LEFT);
  EXPECT_EQ(Refusal<v1::AttentionOptions>("--best 9", kTable), "--best 9: expected 1 to 8");
  EXPECT_EQ(Refusal<v1::AttentionOptions>("--best 0", kTable), "--best 0: expected 1 to 8");
  EXPECT_THROW(Refusal<v1::AttentionOptions>("--top-k 3", kTable), CLI::ExtrasError);
  EXPECT_THROW(Refusal<v1::AttentionOptions>("--causal --top-left", kTable), CLI::ExcludesError);
}

}  // namespace
}  // namespace attend::client
