// What a request holds while its answer waits for a reader.
#include "server/rpc/request_run.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "attend/v1/attention_service.pb.h"
#include "core/runtime/executor.h"
#include "server/requests/decoders.h"
#include "tests/support/byte_buffers.h"
#include "tests/support/reader_vs_protobuf.h"

namespace attend::server {
namespace {

class Caller final : public InboundCall {
 public:
  explicit Caller(AccountRef account) { account_ = std::move(account); }
  std::chrono::system_clock::time_point deadline() const override {
    return std::chrono::system_clock::time_point::max();
  }
  const std::string& method() const override { return method_; }
  std::string peer() const override { return "nobody"; }
  std::string_view Metadata(const char* /*name*/) const override { return {}; }

 private:
  void Delete() override {}
  const std::string method_ = "/test.Test/Compute";
};

// Keeps the answer, as a transport whose peer does not read.
class Sender final : public RequestRun::Owner {
 public:
  void OnResponse(const grpc::ByteBuffer& response, Clock::time_point /*now*/) override { answer_ = response; }
  void OnError(const absl::Status& status) override { answer_ = status; }
  const absl::StatusOr<grpc::ByteBuffer>& answer() const { return answer_; }

 private:
  absl::StatusOr<grpc::ByteBuffer> answer_ = absl::UnknownError("none");
};

class CountedJob final : public Job {
 public:
  CountedJob(int& alive, bool fails) : alive_(alive), fails_(fails) { ++alive_; }
  ~CountedJob() override { --alive_; }
  double flops() const override { return 1; }
  double memory_bytes() const override { return 1000; }
  absl::Status Compute(const ComputeContext& /*context*/) override {
    return fails_ ? absl::InternalError("on purpose") : absl::OkStatus();
  }
  grpc::ByteBuffer TakeResponse() override {
    const grpc::Slice answer("answer");
    return grpc::ByteBuffer(&answer, 1);
  }

 private:
  int& alive_;
  const bool fails_;
};

class RequestRunTest : public ::testing::Test {
 protected:
  explicit RequestRunTest(std::int64_t budget = 1 << 20) : memory_(budget) {
    services_.admission = &admission_;
    services_.memory = &memory_;
  }
  Decoder Counted(bool fails) {
    return [this, fails](const grpc::ByteBuffer&, const DecodeContext&) {
      return std::make_unique<CountedJob>(alive_, fails);
    };
  }
  void Run(const RequestMethod& method, const std::string& request) {
    grpc::ByteBuffer bytes = Sliced(request, 0);
    run_.emplace(services_, method, call_, sender_, timing_);
    run_->Start(bytes, call_.deadline());
  }

  const TenantRef tenant_ = std::make_shared<Tenant>("a");
  Executor executor_{{.num_threads = 1, .max_queued_tasks = 8}};
  Admission admission_{executor_, 8};
  MemoryBudget memory_;
  RequestServices services_;
  Caller call_{std::make_shared<Account>("caller", tenant_, false)};
  Sender sender_;
  CallTiming timing_;
  int alive_ = 0;
  std::optional<RequestRun> run_;
};

TEST_F(RequestRunTest, AnUnreadAnswerIsItsBytesAndNothingElse) {
  const RequestMethod method{.decode = Counted(/*fails=*/false)};
  Run(method, "request");
  ASSERT_TRUE(sender_.answer().ok()) << sender_.answer().status();
  EXPECT_EQ(alive_, 0) << "the job has served";
  EXPECT_EQ(run_->memory_bytes(), 6);
  EXPECT_EQ(tenant_->requests_in_flight(), 0) << "it is computed, and no reader holds up the tenant's next";
}

TEST_F(RequestRunTest, AnAnswerThatIsPutInAnotherFormCountsInBoth) {
  const RequestMethod method{.decode = Counted(/*fails=*/false), .answer_memory = 2};
  Run(method, "request");
  ASSERT_TRUE(sender_.answer().ok()) << sender_.answer().status();
  EXPECT_EQ(run_->memory_bytes(), 12);
  run_->ShrinkMemoryTo(6);
  EXPECT_EQ(memory_.in_use_bytes(), 6);
  // Before it is computed, so that nothing is computed in vain: the job says that its response may have 1000 bytes.
  const RequestMethod many{.decode = Counted(/*fails=*/false), .answer_memory = 1100};
  Run(many, "request");
  EXPECT_EQ(sender_.answer().status().code(), absl::StatusCode::kResourceExhausted) << sender_.answer().status();
  EXPECT_EQ(memory_.in_use_bytes(), 0);
}

TEST_F(RequestRunTest, AnUnreadErrorIsNoRequestInFlightAndHoldsNothing) {
  const RequestMethod method{.decode = Counted(/*fails=*/true)};
  Run(method, "request");
  EXPECT_EQ(sender_.answer().status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(tenant_->requests_in_flight(), 0);
  EXPECT_EQ(alive_, 0) << "the job has failed";
  EXPECT_EQ(run_->memory_bytes(), 0);
  EXPECT_EQ(memory_.in_use_bytes(), 0);
}

// Its bytes would count for nobody.
TEST_F(RequestRunTest, ARefusedRequestIsLetGoOf) {
  const auto left = [this](const RequestMethod& method, std::size_t bytes) {
    grpc::ByteBuffer request = Sliced(std::string(bytes, 'x'), 0);
    run_.emplace(services_, method, call_, sender_, timing_);
    run_->Start(request, call_.deadline());
    EXPECT_EQ(sender_.answer().status().code(), absl::StatusCode::kResourceExhausted) << sender_.answer().status();
    return request.Length();
  };
  const RequestMethod method{.decode = Counted(/*fails=*/false)};
  EXPECT_EQ(left(method, (1 << 20) + 1), 0U) << "more than the memory that there is";
  tenant_->SetLimits({.max_requests_in_flight = 0});
  EXPECT_EQ(left(method, 1), 0U) << "more requests than the tenant may have";
  tenant_->SetLimits({});
  services_.limits.max_request_bytes = 1;
  const RequestMethod longer{.decode = Counted(/*fails=*/false), .transcode = [](grpc::ByteBuffer& /*sent*/) {
                               return absl::StatusOr<grpc::ByteBuffer>(Sliced("longer", 0));
                             }};
  EXPECT_EQ(left(longer, 1), 0U) << "longer than requests may be, once it is in its own form";
  EXPECT_EQ(memory_.in_use_bytes(), 0);
}

// 4 bytes on the wire become 8.
TEST_F(RequestRunTest, MemoryForTensorsIsAskedForBeforeItIsTaken) {
  v1::ScaledDotProductAttentionRequest request;
  for (v1::Tensor* tensor : {request.mutable_query(), request.mutable_key(), request.mutable_value()}) {
    tensor->set_data_type(v1::DATA_TYPE_FLOAT64);
    for (const int axis : {1, 1, 100, 8}) tensor->add_shape(axis);
    tensor->mutable_values()->Resize(800, 0);
  }
  double asked = 0;
  const Limits limits;
  const auto refuse = [&asked](double bytes) {
    asked = bytes;
    return absl::UnavailableError("no memory");
  };
  const auto job = SdpaDecoder()(Sliced(request.SerializeAsString(), 0), {limits, "a", refuse});
  EXPECT_EQ(job.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_GE(asked, 3 * 800 * sizeof(double));
  const RequestMethod method{.decode = SdpaDecoder()};
  Run(method, request.SerializeAsString());
  ASSERT_TRUE(sender_.answer().ok()) << sender_.answer().status();
  EXPECT_EQ(run_->memory_bytes(), static_cast<std::int64_t>(sender_.answer()->Length()));
}

}  // namespace
}  // namespace attend::server
