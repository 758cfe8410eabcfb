// Bodies that are being read at the HTTP door: whose memory they may take.
#include "server/connect/body_quota.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "attend/v1/attention_service.pb.h"
#include "core/runtime/executor.h"
#include "server/connect/connect_protocol.h"
#include "server/connect/http_door.h"
#include "server/rpc/admission.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/request_run.h"

namespace attend::server {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(BodyQuotaTest, OneCallerHasAllUntilAnotherIsRefusedThenNoMoreThanAQuarter) {
  const auto account = [](const std::string& name, bool exempt) {
    return std::make_shared<Account>(name, std::make_shared<Tenant>(name), exempt);
  };
  const AccountRef a = account("a", false), b = account("b", false), proxy = account("p", true);
  const auto now = BodyQuota::Clock::now();
  BodyQuota quota;
  const auto has_room = [&quota](const AccountRef& caller, double wanted, BodyQuota::Clock::time_point when) {
    return quota.CheckRoom(caller.get(), /*held=*/0, wanted, /*most=*/100, when).ok();
  };
  EXPECT_TRUE(has_room(a, 1000, now)) << "alone, one body may be larger than all";
  EXPECT_TRUE(has_room(a, 90, now));
  quota.Add(a.get(), 90);
  EXPECT_FALSE(has_room(a, 20, now)) << "who has more than a quarter does not wait";
  EXPECT_TRUE(has_room(a, 10, now));
  EXPECT_FALSE(has_room(b, 20, now));
  EXPECT_FALSE(has_room(a, 10, now));
  EXPECT_TRUE(has_room(proxy, 10, now));
  quota.Add(a.get(), -70);
  EXPECT_TRUE(has_room(a, 5, now)) << "up to a quarter";
  EXPECT_FALSE(has_room(a, 6, now));
  EXPECT_TRUE(has_room(b, 80, now));
  EXPECT_TRUE(has_room(a, 80, now + std::chrono::seconds(6))) << "the other does not come back";
}

// A door whose bodies may take 4 MiB together, and one caller's 1 MiB while others want some.
class BodiesTest : public ::testing::Test {
 protected:
  BodiesTest() {
    services_.admission = &admission_;
    services_.memory = &memory_;
    methods_.Add(kPath, MakeUnaryMethod(services_, {.decode = nullptr}));
    CallEngine::Options engine;
    engine.authenticator = authenticator_.get();
    door_ =
        std::make_unique<HttpDoor>(HttpDoor::Options{.services = {service_->full_name()}}, methods_, services_, engine);
  }

  // A request from 127.0.0.`caller` whose header has come.
  std::shared_ptr<HttpCall> Begin(int caller) {
    HttpRequest request{.method = "POST",
                        .path = kPath,
                        .headers = {{"content-type", kProtoType}},
                        .peer = "ipv4:127.0.0." + std::to_string(caller) + ":40000"};
    auto outcome = door_->OnCall(std::move(request), {}, HttpReply({}, 1));
    auto* const call = std::get_if<std::shared_ptr<HttpCall>>(&outcome);
    EXPECT_NE(call, nullptr);
    return call == nullptr ? nullptr : *call;
  }
  // What it is answered when its body grows.
  static int StatusAt(HttpCall& call, std::size_t bytes) {
    const std::optional<HttpResponse> refused = call.OnBodyGrows(bytes);
    return refused.has_value() ? refused->status : 200;
  }

  static constexpr char kPath[] = "/attend.v1.AttentionService/Attend";
  // Also has the linker keep the service's descriptor.
  const google::protobuf::ServiceDescriptor* const service_ = v1::AttendRequest::descriptor()->file()->service(0);
  Executor executor_{{.num_threads = 1, .max_queued_tasks = 1}};
  Admission admission_{executor_, 1};
  MemoryBudget memory_{16 * kMiB};
  RequestServices services_;
  MethodTable methods_;
  const std::unique_ptr<Authenticator> authenticator_ = *Authenticator::Create({});
  std::unique_ptr<HttpDoor> door_;
};

TEST_F(BodiesTest, SlowBodiesOfOneCallerLeaveRoomForAnotherWhenTheyEnd) {
  const auto first = Begin(2), second = Begin(2);
  EXPECT_EQ(StatusAt(*first, 2 * kMiB), 200);
  EXPECT_EQ(StatusAt(*second, 2 * kMiB), 200) << "nobody else wants any";
  EXPECT_EQ(StatusAt(*Begin(3), kMiB / 2), 503);
  first->OnGone();
  EXPECT_EQ(StatusAt(*Begin(2), kMiB / 2), 503) << "the next one takes what the other waits for";
  const auto other = Begin(3);
  EXPECT_EQ(StatusAt(*other, kMiB / 2), 200);
  second->OnGone();
  const auto again = Begin(2);
  EXPECT_EQ(StatusAt(*again, kMiB), 200) << "its part";
  EXPECT_EQ(StatusAt(*again, kMiB + 1), 503);
  other->OnGone();
  EXPECT_EQ(memory_.in_use_bytes(), 0);
}

}  // namespace
}  // namespace attend::server
