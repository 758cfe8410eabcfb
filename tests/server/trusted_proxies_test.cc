// Which proxies are believed, and what their header may say.
#include "server/identity/trusted_proxies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace attend::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TrustedProxiesTest, AddressesNetworksAndCertificates) {
  const auto proxies =
      TrustedProxies::Parse({"10.0.0.7", "192.168.0.0/20", "fd00::/8", "uri:spiffe://a/proxy", "cn:edge"});
  ASSERT_TRUE(proxies.ok()) << proxies.status();
  for (const char* address : {"10.0.0.7", "192.168.0.1", "192.168.15.255", "fd12::1"}) {
    EXPECT_TRUE(proxies->HasAddress(address)) << address;
  }
  for (const char* address : {"10.0.0.8", "192.168.16.0", "fe80::1", "unix", "", "::ffff:10.0.0.8", "localhost"}) {
    EXPECT_FALSE(proxies->HasAddress(address)) << address;
  }
  EXPECT_TRUE(proxies->HasAddress("::ffff:10.0.0.7")) << "the same address";
  EXPECT_TRUE(proxies->HasCertificate({"dns:x", "cn:edge"}));
  EXPECT_FALSE(proxies->HasCertificate({"dns:edge"}));
  EXPECT_FALSE(proxies->HasCertificate({}));
  EXPECT_TRUE(TrustedProxies::Parse({"0.0.0.0/0"})->HasAddress("1.2.3.4"));
  EXPECT_FALSE(TrustedProxies::Parse({"0.0.0.0/0"})->HasAddress("::1"));
  EXPECT_TRUE(TrustedProxies::Parse({"unix"})->HasAddress("unix"));
  EXPECT_TRUE(TrustedProxies::Parse({})->empty());
}

TEST(TrustedProxiesTest, WhatIsNoneIsRefused) {
  for (const char* bad : {"", "proxy.example", "10.0.0", "10.0.0.0/33", "::1/129", "10.0.0.1/", "10.0.0.1/-1",
                          "uri:", "email:x", "10.0.0.1/8/8"}) {
    const auto proxies = TrustedProxies::Parse({bad});
    EXPECT_TRUE(absl::IsInvalidArgument(proxies.status())) << bad;
  }
}

TEST(ForwardedCertificateTest, NamesOfOneCertificate) {
  // As Envoy writes them.
  EXPECT_THAT(*ParseForwardedCertificate("By=spiffe://a/proxy;Hash=468ed3;Subject=\"/C=US,CN=Test\\\"x\";"
                                         "URI=spiffe://a/search;DNS=a.example;DNS=b.example"),
              ElementsAre("uri:spiffe://a/search", "dns:a.example", "dns:b.example"));
  EXPECT_THAT(*ParseForwardedCertificate("dns=a;uri=\"x;y,z\""), ElementsAre("uri:x;y,z", "dns:a"));
  EXPECT_THAT(*ParseForwardedCertificate("URI=a=b"), ElementsAre("uri:a=b"));
}

TEST(ForwardedCertificateTest, EmptyNamesAreLeftOut) {
  // Envoy with `uri: true`, of a certificate without a URI.
  const auto no_uri = ParseForwardedCertificate("By=spiffe://a/proxy;Hash=468ed3;URI=;DNS=search.example");
  ASSERT_TRUE(no_uri.ok()) << no_uri.status();
  EXPECT_THAT(*no_uri, ElementsAre("dns:search.example"));
  const auto quoted = ParseForwardedCertificate("DNS=;URI=\"\";URI=a");
  ASSERT_TRUE(quoted.ok()) << quoted.status();
  EXPECT_THAT(*quoted, ElementsAre("uri:a"));
  for (const char* nobody : {"URI=", "URI=;DNS=", "Subject=\"CN=a\";URI="}) {
    const auto identities = ParseForwardedCertificate(nobody);
    EXPECT_TRUE(absl::IsInvalidArgument(identities.status())) << nobody;
    EXPECT_THAT(std::string(identities.status().message()), HasSubstr("names no URI and no DNS name")) << nobody;
  }
}

TEST(ForwardedCertificateTest, AnythingElseIsRefused) {
  for (const char* bad :
       {"", "URI", "URI=", "URI=\"\"", "URI=a;", ";URI=a", "URI=a;;DNS=b", "URI=\"a", "URI=\"a\\", "URI=\"a\"b",
        "Hash=1;By=x", "URI=a;Email=b", "URI =a", "URI=a\n", "URI=\xC3\xA4", "URI=a\"b\"", "=a"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseForwardedCertificate(bad).status())) << bad;
  }
  const auto two = ParseForwardedCertificate("URI=spiffe://a/foe,By=x;URI=spiffe://a/search");
  EXPECT_THAT(std::string(two.status().message()), HasSubstr("more than one element"));
  EXPECT_FALSE(ParseForwardedCertificate("URI=" + std::string(kMaxForwardedCertificateBytes, 'a')).ok());
}

}  // namespace
}  // namespace attend::server
