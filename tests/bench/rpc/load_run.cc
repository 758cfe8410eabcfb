#include "tests/bench/rpc/load_run.h"

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

namespace attend::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// Between two looks at the clock and at what has arrived. gRPC's own waits end at whole milliseconds, too coarse for
// the times between calls, and looking without a pause would take the core from whoever shares it.
constexpr auto kNap = std::chrono::microseconds(50);

Clock::duration ToDuration(double seconds) { return std::chrono::duration_cast<Clock::duration>(Seconds(seconds)); }

std::chrono::system_clock::time_point SystemTime(Clock::time_point time) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(time - Clock::now());
}

// The `compute` entry of the server-timing trailer, in milliseconds.
std::optional<float> ComputeMilliseconds(const grpc::ClientContext& context) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto timing = trailers.find("server-timing");
  if (timing == trailers.end()) return std::nullopt;
  const std::string text(timing->second.data(), timing->second.size());
  const std::size_t at = text.find("compute;dur=");
  if (at == std::string::npos) return std::nullopt;
  return std::strtof(text.c_str() + at + sizeof("compute;dur=") - 1, nullptr);
}

// A place for one call in flight; used again and again.
struct Slot {
  std::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  grpc::ByteBuffer response;
  grpc::Status status;
  Clock::time_point due;  // When the call should have started.
};

class Run {
 public:
  Run(grpc::GenericStub& stub, const grpc::ByteBuffer& request, const LoadOptions& options)
      : stub_(stub), request_(request), options_(options), slots_(static_cast<std::size_t>(options.concurrency)) {
    for (Slot& slot : slots_) free_.push_back(&slot);
    count_from_ = Clock::now() + ToDuration(options.warmup_seconds);
    end_ = count_from_ + ToDuration(options.seconds);
  }

  LoadResult Execute() {
    options_.rate > 0 ? OpenLoop() : ClosedLoop();
    while (in_flight_ > 0) WaitForOne(Clock::time_point::max());
    result_.drain_seconds = Seconds(Clock::now() - end_).count();
    result_.seconds = options_.seconds;
    queue_.Shutdown();
    return std::move(result_);
  }

 private:
  void ClosedLoop() {
    while (Clock::now() < end_) {
      while (!free_.empty()) Start(Clock::now());
      WaitForOne(end_);
    }
  }

  void OpenLoop() {
    const Clock::duration step = ToDuration(1 / options_.rate);
    for (Clock::time_point due = Clock::now(); due < end_; due += step) {
      while (Clock::now() < due) {
        if (!TakeOne()) std::this_thread::sleep_for(kNap);
      }
      if (!free_.empty()) {
        Start(due);
      } else if (due >= count_from_) {
        ++result_.not_started;
      }
    }
  }

  void Start(Clock::time_point due) {
    Slot& slot = *free_.back();
    free_.pop_back();
    slot.due = due;
    slot.context.emplace();
    slot.context->set_deadline(std::chrono::system_clock::now() + ToDuration(options_.deadline_seconds));
    if (!options_.cost_hint.empty()) slot.context->AddMetadata("attend-cost-flops", options_.cost_hint);
    if (!options_.token.empty()) slot.context->AddMetadata("authorization", "Bearer " + options_.token);
    slot.response.Clear();
    slot.reader = stub_.PrepareUnaryCall(&*slot.context, options_.method, request_, &queue_);
    slot.reader->StartCall();
    slot.reader->Finish(&slot.response, &slot.status, &slot);
    ++in_flight_;
  }

  // Handles one finished call, or returns at `until`.
  void WaitForOne(Clock::time_point until) {
    void* tag = nullptr;
    bool ok = false;
    if (until == Clock::time_point::max()) {
      if (!queue_.Next(&tag, &ok)) return;
    } else if (queue_.AsyncNext(&tag, &ok, SystemTime(until)) != grpc::CompletionQueue::GOT_EVENT) {
      return;
    }
    Handle(tag);
  }

  // Handles one call if one has finished already.
  bool TakeOne() {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC)) != grpc::CompletionQueue::GOT_EVENT)
      return false;
    Handle(tag);
    return true;
  }

  void Handle(void* tag) {
    Slot& slot = *static_cast<Slot*>(tag);
    const Clock::time_point now = Clock::now();
    if (now >= count_from_ && now <= end_) {
      const int code = slot.status.error_code();
      ++result_.calls_by_code[code];
      result_.latencies_by_code[code].push_back(std::chrono::duration<float, std::milli>(now - slot.due).count());
      if (const std::optional<float> compute = ComputeMilliseconds(*slot.context)) result_.compute.push_back(*compute);
    }
    ++result_.all_calls;
    --in_flight_;
    free_.push_back(&slot);
  }

  grpc::GenericStub& stub_;
  const grpc::ByteBuffer& request_;
  const LoadOptions& options_;
  grpc::CompletionQueue queue_;
  std::vector<Slot> slots_;
  std::vector<Slot*> free_;
  int in_flight_ = 0;
  Clock::time_point count_from_;
  Clock::time_point end_;
  LoadResult result_;
};

}  // namespace

LoadResult RunLoad(grpc::GenericStub& stub, const grpc::ByteBuffer& request, const LoadOptions& options) {
  return Run(stub, request, options).Execute();
}

}  // namespace attend::bench
