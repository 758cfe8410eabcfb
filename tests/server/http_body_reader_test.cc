// HttpBodyReader, with bodies in pieces of every size.
#include "server/http/http_body_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace attend::server {
namespace {

using Result = HttpBodyReader::Result;

struct Read {
  Result result = Result::kMore;
  std::string body;      // When it is complete.
  std::string left;      // Of the pieces, not taken.
  std::size_t held = 0;  // After the last growth.
};

std::string Flat(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string flat;
  for (const grpc::Slice& slice : slices) flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return flat;
}

// Hands `text` to `reader` in pieces of `size` bytes.
Read InPieces(HttpBodyReader& reader, const std::string& text, std::size_t size) {
  Read read;
  for (std::size_t at = 0; at < text.size() && read.result == Result::kMore; at += size) {
    const std::string piece = text.substr(at, size);
    std::string_view bytes = piece;
    while ((read.result = reader.Take(bytes)) == Result::kGrow) {
      EXPECT_GT(reader.bytes_after_growth(), read.held);
      read.held = reader.bytes_after_growth();
      reader.Grow();
    }
    read.left = std::string(bytes) + text.substr(std::min(at + size, text.size()));
  }
  if (read.result == Result::kDone) read.body = Flat(reader.TakeBody());
  return read;
}

constexpr std::size_t kMost = 1 << 20;
constexpr std::size_t kOverhead = 256;

TEST(HttpBodyReader, ABodyWithALengthEndsWhereItSays) {
  const std::string text(200'000, 'x');
  for (const std::size_t size : {1UL, 4096UL, 70'000UL, 300'000UL}) {
    HttpBodyReader reader(text.size(), kMost, kOverhead);
    const Read read = InPieces(reader, text + "GET /", size);
    EXPECT_EQ(read.result, Result::kDone);
    EXPECT_EQ(read.body, text);
    EXPECT_EQ(read.left, "GET /");
    EXPECT_EQ(read.held, text.size()) << "an honest length takes no more memory than it says";
  }
}

TEST(HttpBodyReader, NoBodyTakesNothing) {
  HttpBodyReader reader(0, kMost, kOverhead);
  std::string_view bytes = "GET /";
  EXPECT_EQ(reader.Take(bytes), Result::kDone);
  EXPECT_EQ(bytes, "GET /");
  EXPECT_EQ(reader.TakeBody().Length(), 0U);
}

TEST(HttpBodyReader, ChunksInPiecesOfEverySizeGiveTheBody) {
  const std::string text = "5 \r\nhello\r\n00A \t;name=\"v\"\r\n, world!!!\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\nGET /";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    HttpBodyReader reader(std::nullopt, kMost, kOverhead);
    const Read read = InPieces(reader, text, size);
    EXPECT_EQ(read.result, Result::kDone) << size;
    EXPECT_EQ(read.body, "hello, world!!!") << size;
    EXPECT_EQ(read.left, "GET /") << size;
  }
}

TEST(HttpBodyReader, WhatIsNoChunkIsRefused) {
  for (const char* text :
       {"\r\n", "x\r\n", "-1\r\n", "0x5\r\nhello\r\n", "5\nhello\n", "5\r\nhello!\r\n", "123456789\r\n",
        " 5\r\nhello\r\n", "5 junk\r\nhello\r\n", "5\tx;name=value\r\nhello\r\n", "5\r\nhello\r\nx\r\n"}) {
    HttpBodyReader reader(std::nullopt, std::size_t{1} << 40, kOverhead);
    EXPECT_EQ(InPieces(reader, text, 3).result, Result::kMalformed) << text;
  }
}

TEST(HttpBodyReader, MoreThanTheMostIsRefusedBeforeItIsRead) {
  HttpBodyReader with_length(kMost + 1, kMost, kOverhead);
  EXPECT_EQ(InPieces(with_length, "x", 1).result, Result::kTooLong);
  HttpBodyReader one_chunk(std::nullopt, kMost, kOverhead);
  EXPECT_EQ(InPieces(one_chunk, "FFFFFFFF\r\nx", 100).result, Result::kTooLong);
  HttpBodyReader two_chunks(std::nullopt, 8, kOverhead);
  EXPECT_EQ(InPieces(two_chunks, "5\r\nhello\r\n4\r\n", 100).result, Result::kTooLong);
}

TEST(HttpBodyReader, LinesBesideTheBodyAreBounded) {
  std::string tiny, trailers = "0\r\n";
  for (int i = 0; i < 1000; ++i) tiny += "1\r\nx\r\n", trailers += "A: b\r\n";
  for (const std::string& text : {tiny, trailers, "5;" + std::string(2000, 'x')}) {
    HttpBodyReader reader(std::nullopt, kMost, kOverhead);
    EXPECT_EQ(InPieces(reader, text, 1000).result, Result::kMalformed);
  }
}

}  // namespace
}  // namespace attend::server
