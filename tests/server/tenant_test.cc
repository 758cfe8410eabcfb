// What a tenant may use, with times that are given; and who counts as one caller.
#include "server/identity/tenant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "server/rpc/shares.h"
#include "server/rpc/status.h"
#include "server/rpc/tenant_quota.h"

namespace attend::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::_;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

const Tenant::Clock::time_point kStart = Tenant::Clock::time_point(std::chrono::hours(1));

double Ms(Tenant::Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

TEST(TenantTest, TakesUpToItsLimitsAndGivesBack) {
  Tenant tenant("a");
  tenant.SetLimits({.max_requests_in_flight = 2, .max_memory_in_flight_bytes = 100});
  EXPECT_TRUE(tenant.TakeRequest());
  EXPECT_TRUE(tenant.TakeRequest());
  EXPECT_FALSE(tenant.TakeRequest());
  EXPECT_EQ(tenant.requests_in_flight(), 2) << "a refusal takes nothing";
  tenant.GiveRequest();
  EXPECT_TRUE(tenant.TakeRequest());
  EXPECT_TRUE(tenant.TakeMemory(100));
  EXPECT_FALSE(tenant.TakeMemory(1));
  EXPECT_TRUE(tenant.TakeMemory(0));
  tenant.GiveMemory(40);
  EXPECT_TRUE(tenant.TakeMemory(40));
  tenant.SetLimits({.max_requests_in_flight = 1});
  EXPECT_FALSE(tenant.TakeRequest()) << "what is in flight stays";
  EXPECT_TRUE(tenant.TakeMemory(std::int64_t{1} << 40));
}

TEST(TenantTest, ItsComputeRateHoldsOverSecondsAndIsPaidBack) {
  Tenant tenant("a");
  EXPECT_EQ(Ms(tenant.ComputeDelay(kStart)), 0);
  tenant.SetLimits({.max_compute_threads = 0.5});
  EXPECT_EQ(Ms(tenant.ComputeDelay(kStart)), 0);
  tenant.Computed(milliseconds(400), true, kStart);
  EXPECT_EQ(Ms(tenant.ComputeDelay(kStart)), 0) << "half a second at once";
  tenant.Computed(milliseconds(1100), true, kStart);
  EXPECT_NEAR(Ms(tenant.ComputeDelay(kStart)), 2000, 1) << "a second owed at half a second a second";
  EXPECT_NEAR(Ms(tenant.ComputeDelay(kStart + seconds(1))), 1000, 1);
  EXPECT_EQ(Ms(tenant.ComputeDelay(kStart + milliseconds(2001))), 0);
  EXPECT_EQ(Ms(tenant.ComputeDelay(kStart + seconds(100))), 0);
  tenant.Computed(milliseconds(600), false, kStart + seconds(100));
  EXPECT_NEAR(Ms(tenant.ComputeDelay(kStart + seconds(100))), 200, 1) << "no more than a second's is saved up";
  EXPECT_EQ(Ms(tenant.TakeUnqueued()), 600);
  EXPECT_EQ(Ms(tenant.TakeUnqueued()), 0);
  EXPECT_EQ(Ms(tenant.compute_time()), 2100);
  EXPECT_EQ(tenant.requests_computed(), 3);
  tenant.UsedThread(milliseconds(400), kStart + seconds(200));
  tenant.UsedThread(milliseconds(600), kStart + seconds(200));
  EXPECT_NEAR(Ms(tenant.ComputeDelay(kStart + seconds(200))), 1000, 1) << "for what did not begin to compute, too";
  EXPECT_EQ(Ms(tenant.compute_time()), 3100);
  EXPECT_EQ(tenant.requests_computed(), 3);
}

TEST(TenantTest, AQuotaThatIsUsedUpSaysWhichAndWhenToComeBack) {
  const auto tenant = std::make_shared<Tenant>("shop");
  tenant->SetLimits({.max_requests_in_flight = 1});
  const auto account = std::make_shared<Account>("a", tenant, false);
  auto first = TenantRequest::Begin(account);
  ASSERT_TRUE(first.ok());
  const absl::Status second = TenantRequest::Begin(account).status();
  EXPECT_TRUE(absl::IsResourceExhausted(second)) << second;
  const ErrorDetails details = GetErrorDetails(second);
  EXPECT_EQ(details.reason, "TENANT_QUOTA");
  EXPECT_THAT(details.metadata, UnorderedElementsAre(Pair("quota", "max_requests_in_flight"), Pair(kRetryDelayKey, _)));
  EXPECT_EQ(tenant->refusals(), 1);
  EXPECT_EQ(tenant->TakeUnqueued(), Tenant::kRefusalTime) << "it is the tenant's time";
  *first = TenantRequest();
  EXPECT_TRUE(TenantRequest::Begin(account).ok());
  EXPECT_EQ(tenant->requests_in_flight(), 0);
  EXPECT_TRUE(TenantRequest::Begin(nullptr).ok());
}

// Metrics give the first twenty labels of their own, which no later tenant may take from them.
TEST(TenantsTest, AreListedInTheOrderInWhichTheyWereFirstNamed) {
  Tenants tenants;
  for (const char* name : {"b", "c", "a", "c", "b"}) tenants.Get(name);
  std::vector<std::string> names;
  for (const TenantRef& tenant : tenants.All()) names.push_back(tenant->name());
  EXPECT_EQ(names, (std::vector<std::string>{"b", "c", "a"}));
}

TEST(AccountsTest, OneForEachCallerForAsLongAsItIsHeld) {
  Accounts accounts;
  const auto tenant = std::make_shared<Tenant>("a");
  AccountRef one = accounts.Get("10.0.0.1", tenant);
  EXPECT_EQ(accounts.Get("10.0.0.1", tenant), one);
  EXPECT_NE(accounts.Get("10.0.0.2", tenant), one);
  EXPECT_NE(accounts.Get("10.0.0.1", std::make_shared<Tenant>("b")), one) << "another tenant's now";
  const std::weak_ptr<Account> gone = one;
  one.reset();
  EXPECT_TRUE(gone.expired());
  for (int i = 0; i < 10000; ++i) accounts.Get(std::to_string(i), tenant);
}

TEST(RefusedLatelyTest, OnlyOthersCountAndOnlyForAMoment) {
  RefusedLately refused;
  const int a = 0, b = 0, c = 0;
  EXPECT_FALSE(refused.AreOthers(&a, kStart));
  refused.Note(&a, kStart);
  EXPECT_FALSE(refused.AreOthers(&a, kStart));
  EXPECT_TRUE(refused.AreOthers(&b, kStart));
  refused.Note(&b, kStart + seconds(1));
  EXPECT_TRUE(refused.AreOthers(&a, kStart + seconds(1)));
  EXPECT_TRUE(refused.AreOthers(&b, kStart + seconds(1)));
  EXPECT_TRUE(refused.AreOthers(&c, kStart + seconds(5)));
  EXPECT_FALSE(refused.AreOthers(&b, kStart + seconds(6))) << "a's was too long ago";
  EXPECT_FALSE(refused.AreOthers(&c, kStart + seconds(7)));
}

TEST(TenantNameTest, IsOnePartOfAKey) {
  for (const std::string& name : std::vector<std::string>{"a", "shop", "0", "a-b-0", std::string(63, 'x')}) {
    EXPECT_TRUE(CheckTenantName(name).ok()) << name;
  }
  for (const std::string name : {"", "A", "a/b", "a@b", "a.b", "a b", "-a", "a_b", "\xC3\xA4"}) {
    EXPECT_FALSE(CheckTenantName(name).ok()) << name;
  }
  EXPECT_FALSE(CheckTenantName(std::string(64, 'x')).ok());
}

}  // namespace
}  // namespace attend::server
