// Guards that who misspells a word is told the right one, and that who writes another word is told nothing.
#include "formats/command_line/nearest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace attend::formats {
namespace {

const std::vector<std::string>& Flags() {
  static const auto* const flags = new std::vector<std::string>{
      "--input", "--weights", "--causal", "--causal-top-left", "--top-k", "--num-heads", "--tls"};
  return *flags;
}

TEST(Nearest, EditDistanceCountsLetters) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("abc", ""), 3u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("flaw", "lawn"), 2u);
}

TEST(Nearest, MisspelledWordsAreFound) {
  const std::pair<const char*, const char*> cases[] = {
      {"--inptu", "--input"},      {"--wieghts", "--weights"}, {"--weight", "--weights"},
      {"--is-causal", "--causal"}, {"--topk", "--top-k"},      {"--INPUT", "--input"},
      {"--heads", "--num-heads"},  {"--tsl", "--tls"},         {"weights", "--weights"},
  };
  for (const auto& [word, meant] : cases) EXPECT_EQ(Nearest(word, Flags()), meant) << word;
}

TEST(Nearest, WordsOfOtherProgramsAreTranslated) {
  const std::vector<std::string> server = {"--http-host", "--port-file", "--listen", "--http-listen", "--layer"};
  EXPECT_EQ(Nearest("--port", server), "--listen");
  EXPECT_EQ(Nearest("--http-port", server), "--http-listen");
  EXPECT_EQ(Nearest("--model", server), "--layer");
  EXPECT_EQ(Nearest("--server", {"--tls-server-name", "--endpoints"}), "--endpoints");
  EXPECT_EQ(Nearest("FP16", {"float32", "float16"}), "float16");
  EXPECT_EQ(Nearest("half", {"exact", "fast"}), "") << "there are no such types";
  EXPECT_EQ(Nearest("report", {"listen"}), "") << "a part of a word is no word";
}

TEST(Nearest, OtherWordsAreLeftAlone) {
  for (const char* word : {"--frobnicate", "--x", "", "--", "--quiet"}) EXPECT_EQ(Nearest(word, Flags()), "") << word;
  EXPECT_EQ(Nearest("--input", {}), "");
}

TEST(Nearest, TheQuestionIsAskedOnlyWithAnAnswer) {
  EXPECT_EQ(DidYouMean("notbook", {"minilm/0", "notebook"}), "; did you mean notebook?");
  EXPECT_EQ(DidYouMean("other", {"minilm/0", "notebook"}), "");
}

}  // namespace
}  // namespace attend::formats
