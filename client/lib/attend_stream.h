// Many requests over one stream: for programs with many small requests, where a message each costs a fraction of
// what a call each would.
//
// The easy way answers all of a list, in the order in which they are done:
//
//   absl::Status status = AttendAll(*client, requests, CallOptions(absl::Seconds(30)),
//                                   [&](std::size_t i, StreamResult result) { ... });
//
// The other is a stream of one's own, which one thread feeds while another takes responses:
//
//   absl::StatusOr<std::unique_ptr<AttendStream>> stream = client->StreamAttend(CallOptions(absl::Minutes(5)));
//   std::thread sender([&] { while (...) (*stream)->Send(id, std::move(request)); (*stream)->CloseSending(); });
//   while (std::optional<StreamResult> result = (*stream)->Receive()) Use(result->id, result->response);
//   sender.join();
//   absl::Status status = (*stream)->Finish();
//
// The server works on a bounded number of a stream's requests and then stops reading, so that Send blocks: a program
// that sends many before it receives any would wait for ever, that is until the stream's deadline.
//
// Requests that the server refuses are not repeated; GetServerError(status).retry_delay says when to send them again.
#ifndef ATTEND_CLIENT_LIB_ATTEND_STREAM_H_
#define ATTEND_CLIENT_LIB_ATTEND_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attend/v1/attention_service.pb.h"
#include "client/lib/client.h"
#include "client/lib/server_timing.h"

namespace attend::client {

// What a server answered to one request: `response` to an AttendRequest, `sdpa_response` to a
// ScaledDotProductAttentionRequest. A request that failed has its error in both; of a request that went well, the one
// of the other kind holds FAILED_PRECONDITION.
struct StreamResult {
  std::int64_t id = 0;
  // Errors: those of Client::Attend, with the same details; INTERNAL also for an error without a code.
  absl::StatusOr<v1::AttendResponse> response;
  absl::StatusOr<v1::ScaledDotProductAttentionResponse> sdpa_response;
  std::vector<StageTime> server_timing;
};

// Send and CloseSending may be called by several threads, concurrently with each other and with one thread that calls
// Receive and then Finish; Cancel by anyone at any time.
class AttendStream {
 public:
  // Cancels what has not ended. REQUIRES: no other call runs.
  ~AttendStream();
  AttendStream(const AttendStream&) = delete;
  AttendStream& operator=(const AttendStream&) = delete;

  // Sends `request`, to be answered under `id`, which is the caller's to choose. It is not started later than `timeout`
  // (more than 0) after the server has read it. Blocks while the server reads nothing. Errors: FAILED_PRECONDITION
  // after CloseSending; RESOURCE_EXHAUSTED for a request above the client's `max_message_bytes`, which is not sent and
  // leaves the stream as it is; UNAVAILABLE when the stream has ended, about which Finish says more.
  absl::Status Send(std::int64_t id, v1::AttendRequest request, absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Send(std::int64_t id, v1::ScaledDotProductAttentionRequest request,
                    absl::Duration timeout = absl::InfiniteDuration());

  // Says that no request follows. The stream then ends when all are answered. Does nothing the second time.
  void CloseSending();

  // Waits for the next result. Nothing when there will be none any more: all are answered, or the stream is broken.
  std::optional<StreamResult> Receive();

  // How the stream ended. Errors: those of every call (client/lib/client.h); UNAVAILABLE also when the server stops,
  // after it has answered what it had read. Requests without a response were not computed. REQUIRES: Receive returned
  // nothing; called once.
  absl::Status Finish();

  // Ends the stream now; Receive and Send return soon, and the server drops its work.
  void Cancel();

 private:
  friend class Client;
  struct Rpc;
  explicit AttendStream(std::unique_ptr<Rpc> rpc);
  absl::Status SendMessage(std::int64_t id, v1::StreamAttendRequest message, absl::Duration timeout);
  // What client/lib/client.h says of servers of version 0.1: noted when a request is sent, seen when it is answered.
  void NoteUnknownField(const v1::StreamAttendRequest& message);
  std::string UnknownFieldOf(std::int64_t id);
  void CheckUnderstood(StreamResult& result);

  std::unique_ptr<Rpc> rpc_;
};

// Sends all `requests` over one stream and calls `on_result(i, result)` with the response to requests[i] as it arrives,
// on the calling thread. A request that is too large to be sent has its RESOURCE_EXHAUSTED after the others' results;
// one that a broken stream left without a response has none. Returns how the stream ended: OK when every request was
// answered, be it with an error; RESOURCE_EXHAUSTED also when this machine has no thread or memory to send them. What
// `on_result` throws ends the stream and reaches the caller.
absl::Status AttendAll(const Client& client, absl::Span<const v1::AttendRequest> requests, const CallOptions& options,
                       absl::FunctionRef<void(std::size_t, StreamResult)> on_result);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_ATTEND_STREAM_H_
