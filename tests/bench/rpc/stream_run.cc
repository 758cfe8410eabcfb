#include "tests/bench/rpc/stream_run.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace attend::bench {
namespace {

using Clock = std::chrono::steady_clock;
using google::protobuf::internal::WireFormatLite;

// Fields of StreamAttendRequest and StreamAttendResponse.
constexpr int kId = 1;
constexpr int kAttend = 3;

// Half of what gRPC's transport buffers of a stream; what does not fit there is not called written before it is sent.
constexpr std::size_t kMaxHeldBackBytes = 32 << 10;

Clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

class StreamRun {
 public:
  StreamRun(grpc::GenericStub& stub, const std::string& request, const LoadOptions& options)
      : options_(options), payload_(request), sent_at_(static_cast<std::size_t>(options.concurrency)) {
    for (std::size_t id = 0; id < sent_at_.size(); ++id) free_ids_.push_back(id);
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::system_clock::duration>(
                              std::chrono::duration<double>(options.deadline_seconds)));
    stream_ = stub.PrepareCall(&context_, options.method, &queue_);
  }

  LoadResult Execute() {
    stream_->StartCall(this);
    if (Next() == this) Loop();
    grpc::Status status;
    stream_->Finish(&status, this);
    while (Next() != this) {
    }
    if (!status.ok()) ++result_.calls_by_code[status.error_code()];
    if (!status.ok()) result_.latencies_by_code[status.error_code()].push_back(0);
    result_.seconds = options_.seconds;
    queue_.Shutdown();
    return std::move(result_);
  }

 private:
  void Loop() {
    count_from_ = Clock::now() + ToDuration(options_.warmup_seconds);
    end_ = count_from_ + ToDuration(options_.seconds);
    stream_->Read(&answer_, &answer_);
    WriteNext();
    for (;;) {
      const void* done = NextOrNull();
      if (done == &answer_) {
        if (!ok_) return;
        HandleAnswer();
        stream_->Read(&answer_, &answer_);
      } else if (done == &writing_) {
        writing_ = false;
        if (!ok_) closed_ = true;
      }
      // A last one waits until nothing else is to be done, so that several travel together.
      if (done == nullptr || free_ids_.size() > 1 || Clock::now() >= end_) WriteNext();
    }
  }

  void WriteNext() {
    if (writing_ || closed_ || (free_ids_.empty() && Clock::now() < end_)) return;
    const Clock::time_point now = Clock::now();
    if (now >= end_) {
      closed_ = writing_ = true;
      return stream_->WritesDone(&writing_);
    }
    const std::size_t id = free_ids_.back();
    free_ids_.pop_back();
    sent_at_[id] = now;
    const grpc::Slice slices[] = {grpc::Slice(Header(id)), payload_};
    grpc::WriteOptions write;
    held_back_bytes_ += payload_.size();
    if (!free_ids_.empty() && held_back_bytes_ < kMaxHeldBackBytes) {
      write.set_buffer_hint();
    } else {
      held_back_bytes_ = 0;
    }
    writing_ = true;
    stream_->Write(grpc::ByteBuffer(slices, 2), write, &writing_);
  }

  std::string Header(std::size_t id) const {
    std::string header;
    {
      google::protobuf::io::StringOutputStream out(&header);
      google::protobuf::io::CodedOutputStream coded(&out);
      WireFormatLite::WriteUInt64(kId, id, &coded);
      coded.WriteTag(WireFormatLite::MakeTag(kAttend, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
      coded.WriteVarint32(static_cast<std::uint32_t>(payload_.size()));
    }
    return header;
  }

  void HandleAnswer() {
    grpc::Slice bytes;
    if (!answer_.DumpToSingleSlice(&bytes).ok()) return;
    google::protobuf::io::CodedInputStream in(bytes.begin(), static_cast<int>(bytes.size()));
    std::uint64_t id = 0;
    bool has_result = false;
    while (const std::uint32_t tag = in.ReadTag()) {
      if (WireFormatLite::GetTagFieldNumber(tag) == kId) {
        in.ReadVarint64(&id);
        continue;
      }
      has_result = WireFormatLite::GetTagFieldNumber(tag) == kAttend;
      std::uint32_t length = 0;
      if (has_result || !in.ReadVarint32(&length) || !in.Skip(static_cast<int>(length))) break;
    }
    const Clock::time_point now = Clock::now();
    if (sent_at_[id] >= count_from_ && now <= end_) {
      const int code = has_result ? 0 : grpc::StatusCode::UNKNOWN;
      ++result_.calls_by_code[code];
      result_.latencies_by_code[code].push_back(std::chrono::duration<float, std::milli>(now - sent_at_[id]).count());
    }
    ++result_.all_calls;
    free_ids_.push_back(id);
    answer_.Clear();
  }

  // What has happened; null when nothing has and something could be written.
  const void* NextOrNull() {
    if (writing_ || closed_ || free_ids_.empty()) return Next();
    void* tag = nullptr;
    return queue_.AsyncNext(&tag, &ok_, gpr_inf_past(GPR_CLOCK_MONOTONIC)) == grpc::CompletionQueue::GOT_EVENT
               ? tag
               : nullptr;
  }

  const void* Next() {
    void* tag = nullptr;
    return queue_.Next(&tag, &ok_) ? tag : nullptr;
  }

  const LoadOptions& options_;
  const grpc::Slice payload_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  std::vector<Clock::time_point> sent_at_;  // By id.
  std::vector<std::size_t> free_ids_;
  grpc::ByteBuffer answer_;
  bool ok_ = false;
  bool writing_ = false;
  bool closed_ = false;
  std::size_t held_back_bytes_ = 0;
  Clock::time_point count_from_;
  Clock::time_point end_;
  LoadResult result_;
};

}  // namespace

LoadResult RunStreamLoad(grpc::GenericStub& stub, const std::string& request, const LoadOptions& options) {
  return StreamRun(stub, request, options).Execute();
}

}  // namespace attend::bench
