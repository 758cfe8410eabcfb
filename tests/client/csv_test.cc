// Guards the reader of .csv files: what numbers it takes, and that it guesses nothing.
#include "client/io/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

namespace attend::client {
namespace {

absl::StatusOr<Tensor> Read(const std::string& text) {
  std::istringstream in(text);
  return ReadCsv(in);
}

TEST(Csv, RowsBecomeAMatrixOfDoubles) {
  for (const char* text : {"1,2\n3,0.1\n", "1,2\n3,0.1", "1, 2 \r\n 3,\t0.1\r\n\r\n",
                           "\xef\xbb\xbf"
                           "1,2\n3,1e-1\n\n"}) {
    const absl::StatusOr<Tensor> tensor = Read(text);
    ASSERT_TRUE(tensor.ok()) << text << tensor.status();
    EXPECT_EQ(tensor->type(), ElementType::kFloat64);
    EXPECT_EQ(tensor->shape(), (std::vector<std::int64_t>{2, 2}));
    EXPECT_EQ(tensor->ToDoubles(), (std::vector<double>{1, 2, 3, 0.1}));
  }
  EXPECT_TRUE(std::isnan(Read("nan,-inf\n")->ToDoubles()[0]));
  EXPECT_TRUE(std::isinf(Read("nan, -Infinity\n")->ToDoubles()[1]));
}

TEST(Csv, WhatIsNotAMatrixOfNumbersIsRefusedWithItsPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "it has no numbers"},
      {"\n\n", "it has no numbers"},
      {"a,b\n1,2\n", "line 1, column 1: 'a' is no number; expected numbers with commas between them, no headings"},
      {"1,2\n3,\n", "line 2, column 2: '' is no number; expected numbers with commas between them, no headings"},
      {"1;2\n", "line 1, column 1: '1;2' is no number; expected numbers with commas between them, no headings"},
      {"1,2\n3,1e999\n", "line 2, column 2: '1e999' is beyond the range of float64"},
      {"-1e309\n", "line 1, column 1: '-1e309' is beyond the range of float64"},
      {"1,2\n3\n", "line 2 has 1 numbers, and the lines before it have 2"},
      {"1\n\n2\n", "line 3 follows an empty line"},
      {"\x93NUMPY\n",
       "line 1, column 1: '\\x93NUMPY' is no number; expected numbers with commas between them, no headings"},
  };
  for (const auto& [text, message] : cases) EXPECT_EQ(Read(text).status().message(), message) << text;
}

}  // namespace
}  // namespace attend::client
