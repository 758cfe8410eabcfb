// SHA-256 as FIPS 180-4 has it, or none.
#include "formats/files/sha256.h"

#include <gtest/gtest.h>
#include <openssl/provider.h>

#include <string>
#include <utility>

namespace attend::formats {
namespace {

constexpr char kOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256Test, IsThatOfTheStandard) {
  EXPECT_EQ(ToHex(Sha256::Of("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(ToHex(Sha256::Of("abc")), kOfAbc);
  EXPECT_EQ(ToHex(Sha256::Of(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PiecesAreTheWhole) {
  Sha256 hash;
  for (const char* piece : {"a", "", "bc"}) hash.Update(piece);
  Sha256 moved = std::move(hash);
  EXPECT_EQ(ToHex(moved.Finish()), kOfAbc);
}

TEST(Sha256DeathTest, WithoutSha256TheProcessEndsWithASentence) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // A child in which OpenSSL has done nothing yet.
  const auto hash = [] {
    OSSL_PROVIDER_load(nullptr, "null");  // In place of the one that computes.
    (void)Sha256::Of("abc");
  };
  EXPECT_DEATH(hash(), "OpenSSL cannot compute SHA-256: .*; look at its configuration");
}

}  // namespace
}  // namespace attend::formats
