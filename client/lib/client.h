// The C++ client of attend: attention as a service, one blocking call at a time from as many threads as you like.
//
//   absl::StatusOr<Client> client = Client::Connect({.endpoints = {"localhost:50051"}});
//   v1::AttendRequest request;
//   std::move(embeddings).MoveTo(request.mutable_embeddings());   // Tensor, see client/lib/tensor.h
//   absl::StatusOr<CallResult<v1::AttendResponse>> result = client->Attend(request, CallOptions(absl::Seconds(5)));
//   if (!result.ok()) return result.status();                     // GetServerError(status) says more
//   absl::StatusOr<Tensor> output = Tensor::FromProto(std::move(*result->response.mutable_output()));
//
// Requests and responses are the messages of proto/attend/v1/attention_service.proto, whose comments state shapes,
// ranges and defaults. Layers that the server keeps by name: client/lib/layer_client.h.
//
// What every call does: it fails fast when no endpoint can be reached; it is repeated on UNAVAILABLE alone, at most
// four attempts in all with growing pauses (or the server's `grpc-retry-pushback-ms`) and within the deadline, whatever
// its size; it ends at its deadline. All methods of the service are stateless and idempotent, so repeating is safe.
//
// What an attention call will cost, by its shapes and options, travels ahead of it in metadata (`attend-cost-flops`),
// so that a busy server refuses what it cannot do in time before it is sent; not that of a large call of a named layer,
// which only the server knows.
//
// A server of version 0.1 ignores what version 0.2 brought (proto/attend/v1 has it behind the older fields). Calls that
// set such a field return UNIMPLEMENTED with the field and the server's version in place of such a server's answer.
//
// Errors of every call: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE, DEADLINE_EXCEEDED and others from the server
// as the proto documents them, with details (client/lib/server_error.h); UNAVAILABLE without details when no server
// answered; RESOURCE_EXHAUSTED without details, before anything is sent, for a request above `max_message_bytes`.
#ifndef ATTEND_CLIENT_LIB_CLIENT_H_
#define ATTEND_CLIENT_LIB_CLIENT_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attend/v1/attention_service.pb.h"
#include "client/lib/server_timing.h"

namespace attend::client {

class AttendStream;
struct Channels;

// Credentials, as the contents of PEM files.
struct TlsOptions {
  std::string ca_certificates = {};     // Whom to trust. Default: the certificate authorities of this system.
  std::string client_certificate = {};  // The chain that identifies this client (mutual TLS). Default: none.
  std::string client_key = {};          // Its private key; given exactly when `client_certificate` is.
  std::string server_name = {};         // The name in the server's certificate. Default: the first endpoint's host.
};

struct ClientOptions {
  // Where servers are: `host:port`, `[::1]:port` (without a port: 50051), `dns:///host:port` or `unix:/path`. Calls go
  // round all addresses.
  std::vector<std::string> endpoints = {"127.0.0.1:50051"};

  // Default: plaintext, for trusted networks only.
  std::optional<TlsOptions> tls = std::nullopt;

  // A bearer token, which goes with every call. Default: none.
  std::string token = {};

  // Whether the token may be sent to other machines in plaintext. Default: no, so that Connect refuses it.
  bool insecure = false;

  // Whether a server that says NOT_SERVING, as one does that is about to end, gets no new calls (health `""` of
  // grpc.health.v1). Each connection then holds a call of Watch. Default: where there are several endpoints. Set it for
  // a name with an address for each server, such as a headless Service of Kubernetes; not for a load balancer's name,
  // whose one connection would have no other server to go to.
  std::optional<bool> watch_health = std::nullopt;

  // The largest message sent or received, in bytes; in [1, 2^31 - 1]. Default: what protobuf can hold.
  std::int64_t max_message_bytes = std::numeric_limits<std::int32_t>::max();
};

// How one call is made. A deadline is part of every call: there is no default and no way to wait for ever.
struct CallOptions {
  // `call_timeout` is positive and finite, counted from the start of the call.
  explicit CallOptions(absl::Duration call_timeout) : timeout(call_timeout) {}

  absl::Duration timeout;

  // Whether to wait, within the deadline, for a server that cannot be reached yet. Default: fail at once.
  bool wait_for_ready = false;
};

// A server's response and how the call went. Who computed a result is in response.receipt().
template <typename Response>
struct CallResult {
  Response response;
  std::vector<StageTime> server_timing;  // Empty when the server sent none.
  absl::Duration round_trip;             // From before serialising the request to after parsing the response.
  std::string peer;                      // Who answered, as in `ipv4:127.0.0.1:50051`.
};

// Takes the contents out of all tensors of `message`, whose types and shapes stay, for EstimateCost.
void DescribeOnly(google::protobuf::Message* message);

enum class HealthState : std::uint8_t { kUnknown, kServing, kNotServing, kServiceUnknown };

// Thread-safe. Move-only; a moved-from client may only be assigned to or destroyed. Destroying a client while calls run
// on it is an error of the program.
class Client {
 public:
  // Prepares a channel; the connection itself is made by the first call. Errors: INVALID_ARGUMENT for an endpoint, a
  // certificate without its key, a token that cannot or may not be sent, or a size out of its range; UNAVAILABLE when a
  // name in a list cannot be resolved.
  static absl::StatusOr<Client> Connect(const ClientOptions& options);

  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // Makes the connection now, so that the first call need not: to measure, or to fail early. Errors: DEADLINE_EXCEEDED
  // when none of the endpoints is reached in time.
  absl::Status WaitUntilConnected(const CallOptions& options) const;

  // Computes attention over embeddings.
  absl::StatusOr<CallResult<v1::AttendResponse>> Attend(const v1::AttendRequest& request,
                                                        const CallOptions& options) const;

  // Computes attention over given query, key and value.
  absl::StatusOr<CallResult<v1::ScaledDotProductAttentionResponse>> ScaledDotProductAttention(
      const v1::ScaledDotProductAttentionRequest& request, const CallOptions& options) const;

  // Opens a stream of requests, see client/lib/attend_stream.h; `options` bound the whole of it. The client must
  // outlive it. Errors: INVALID_ARGUMENT for the timeout; all others are told by the stream.
  absl::StatusOr<std::unique_ptr<AttendStream>> StreamAttend(const CallOptions& options) const;

  // What a request would cost, and whether the server would admit it. Its tensors need no contents: DescribeOnly takes
  // them out.
  absl::StatusOr<CallResult<v1::EstimateCostResponse>> EstimateCost(const v1::EstimateCostRequest& request,
                                                                    const CallOptions& options) const;

  // What the server is, computes with, and accepts.
  absl::StatusOr<CallResult<v1::GetServerInfoResponse>> GetServerInfo(const CallOptions& options) const;

  // The health of `service` (grpc.health.v1): empty for the server as a whole, `attend.v1.AttentionService`,
  // `liveness` or `readiness`. Errors: NOT_FOUND for a name the server does not know.
  absl::StatusOr<HealthState> CheckHealth(const std::string& service, const CallOptions& options) const;

  // Calls `on_state` with the health of `service` now and at each change, until it returns false (OK), the server ends
  // the stream, or the deadline passes (DEADLINE_EXCEEDED). The one call whose timeout may be infinite.
  absl::Status WatchHealth(const std::string& service, const CallOptions& options,
                           absl::FunctionRef<bool(HealthState)> on_state) const;

 private:
  friend class LayerClient;
  struct Stubs;
  explicit Client(std::unique_ptr<Stubs> stubs);
  const Channels& channels() const;

  std::unique_ptr<Stubs> stubs_;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_LIB_CLIENT_H_
