// The service of the Connect conformance suite behind the HTTP door: what is tested is the door's transport, its
// routing, its headers, deadlines and bounds, and how it writes errors. Started by the suite's runner
// (conformance_test.sh), which says over stdin what it wants and hears over stdout where the server is.
//
// The suite asks a server for headers and error details of any kind, which methods of attend cannot give. So a
// SuiteCall stands between the door and each of its calls: it reads the suite's request, gives what was asked for to
// the door, and lets a method of the door answer, or answers by the door's own words for errors.
#include <google/protobuf/any.pb.h>
#include <sys/prctl.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "connectrpc/conformance/v1/server_compat.pb.h"
#include "connectrpc/conformance/v1/service.pb.h"
#include "core/runtime/executor.h"
#include "google/rpc/status.pb.h"
#include "server/connect/connect_protocol.h"
#include "server/connect/http_door.h"
#include "server/http/http_server.h"
#include "server/http/http_tls.h"
#include "server/rpc/admission.h"
#include "server/rpc/memory_budget.h"
#include "server/rpc/request_run.h"
#include "tests/support/temporary_folder.h"

namespace attend::testing {
namespace {

namespace suite = connectrpc::conformance::v1;
using server::HttpHeaders;
using server::HttpRequest;
using server::HttpResponse;

constexpr char kService[] = "connectrpc.conformance.v1.ConformanceService";

grpc::ByteBuffer BufferOf(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  grpc::Slice flat;
  if (!buffer.DumpToSingleSlice(&flat).ok()) return {};
  return {reinterpret_cast<const char*>(flat.begin()), flat.size()};
}

struct Answer {
  std::string bytes;
  absl::Duration delay;
};

// Answers that wait for the door's method to give them, each by a number.
class Answers {
 public:
  std::string Add(Answer answer) {
    const absl::MutexLock lock(&mu_);
    answers_.emplace(++last_, std::move(answer));
    return absl::StrCat(last_);
  }
  Answer Take(const std::string& number) {
    const absl::MutexLock lock(&mu_);
    std::uint64_t key = 0;
    return absl::SimpleAtoi(number, &key) ? std::move(answers_.extract(key).mapped()) : Answer{};
  }

 private:
  absl::Mutex mu_;
  std::uint64_t last_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::uint64_t, Answer> answers_ ABSL_GUARDED_BY(mu_);
};

// Takes as long as the suite asked for, unless it is cancelled.
class DelayedJob final : public server::Job {
 public:
  explicit DelayedJob(Answer answer) : answer_(std::move(answer)) {}
  double flops() const override { return answer_.delay > absl::ZeroDuration() ? 1e8 : 1; }
  double memory_bytes() const override { return static_cast<double>(answer_.bytes.size()); }
  absl::Status Compute(const ComputeContext& context) override {
    for (const absl::Time end = absl::Now() + answer_.delay; absl::Now() < end; absl::SleepFor(absl::Milliseconds(1))) {
      if (context.cancelled->load()) return absl::CancelledError("the flag was raised");
    }
    return absl::OkStatus();
  }
  grpc::ByteBuffer TakeResponse() override { return BufferOf(answer_.bytes); }

 private:
  const Answer answer_;
};

// Of the headers and trailers that a definition asks for. Connect sends the trailers of a unary call as headers.
HttpHeaders HeadersOf(const suite::UnaryResponseDefinition& definition) {
  HttpHeaders headers;
  for (const suite::Header& header : definition.response_headers()) {
    for (const std::string& value : header.value()) headers.emplace_back(header.name(), value);
  }
  for (const suite::Header& trailer : definition.response_trailers()) {
    for (const std::string& value : trailer.value()) headers.emplace_back("trailer-" + trailer.name(), value);
  }
  return headers;
}

// What the suite wants to hear back of its request.
suite::ConformancePayload::RequestInfo InfoOf(const HttpRequest& request, const suite::UnaryRequest& message) {
  suite::ConformancePayload::RequestInfo info;
  std::map<std::string, suite::Header> headers;
  for (const auto& [name, value] : request.headers) headers[name].add_value(value);
  for (auto& [name, header] : headers) {
    header.set_name(name);
    *info.add_request_headers() = header;
  }
  if (const auto timeout = server::ConnectTimeout(request); timeout.ok() && timeout->has_value()) {
    info.set_timeout_ms((*timeout)->count());
  }
  info.add_requests()->PackFrom(message);
  return info;
}

// The door's own errors say more than the suite wants to hear: each has an ErrorInfo.
HttpResponse WithoutDetails(HttpResponse answer) {
  std::string text;
  for (const grpc::Slice& piece : answer.body.Next()) text.append(piece.begin(), piece.end());
  const std::size_t details = text.find(",\"details\":[");
  answer.body = details == std::string::npos ? text : text.substr(0, details) + "}";
  return answer;
}

class SuiteCall final : public server::HttpCall {
 public:
  // `call`: the door's, which has passed what can be said before the body is read.
  SuiteCall(server::HttpDoor& door, Answers& answers, HttpRequest request, const server::HttpReply& reply,
            std::shared_ptr<HttpCall> call)
      : door_(door), answers_(answers), request_(std::move(request)), reply_(reply), call_(std::move(call)) {}

  std::optional<HttpResponse> OnBodyGrows(std::size_t bytes) override { return call_->OnBodyGrows(bytes); }
  std::optional<std::chrono::system_clock::time_point> watched_deadline() const override {
    return call_->watched_deadline();
  }
  void OnDeadline() override { call_->OnDeadline(); }
  void OnGone() override { call_->OnGone(); }
  HttpResponse OnUnreadableBody(server::BodyFault fault) override {
    return WithoutDetails(call_->OnUnreadableBody(fault));
  }
  std::size_t max_body_bytes() const override { return call_->max_body_bytes(); }

  void OnBody(grpc::ByteBuffer& body) override {
    suite::UnaryRequest message;
    if (!message.ParseFromString(BytesOf(body))) return call_->OnBody(body);
    const suite::UnaryResponseDefinition& definition = message.response_definition();
    const suite::ConformancePayload::RequestInfo info = InfoOf(request_, message);
    if (definition.has_error()) return Fail(definition, info);
    suite::UnaryResponse response;
    response.mutable_payload()->set_data(definition.response_data());
    *response.mutable_payload()->mutable_request_info() = info;
    // A second call of the door, with headers that the first could not know.
    auto outcome = door_.OnCall(request_, HeadersOf(definition), reply_);
    if (auto* refused = std::get_if<HttpResponse>(&outcome)) return reply_.Send(std::move(*refused));
    call_ = std::get<std::shared_ptr<HttpCall>>(outcome);
    grpc::ByteBuffer number = BufferOf(answers_.Add(
        {.bytes = response.SerializeAsString(), .delay = absl::Milliseconds(definition.response_delay_ms())}));
    call_->OnBody(number);
  }

 private:
  void Fail(const suite::UnaryResponseDefinition& definition, const suite::ConformancePayload::RequestInfo& info) {
    google::rpc::Status status;
    status.set_code(definition.error().code());  // Connect's codes are gRPC's.
    status.set_message(definition.error().message());
    *status.mutable_details() = definition.error().details();
    status.add_details()->PackFrom(info);
    HttpResponse answer = server::ConnectError(status);
    answer.headers = HeadersOf(definition);
    reply_.Send(std::move(answer));
  }

  server::HttpDoor& door_;
  Answers& answers_;
  const HttpRequest request_;
  const server::HttpReply reply_;
  std::shared_ptr<HttpCall> call_;
};

class Suite final : public server::HttpService {
 public:
  explicit Suite(const server::Limits& limits)
      : executor_({.num_threads = 4, .max_queued_tasks = limits.max_queued_requests}),
        admission_(executor_, limits.max_queued_requests),
        memory_(limits.max_memory_in_flight_bytes) {
    services_.admission = &admission_;
    services_.memory = &memory_;
    services_.limits = limits;
    const server::Decoder decode = [this](const grpc::ByteBuffer& number, const server::DecodeContext&) {
      return std::make_unique<DelayedJob>(answers_.Take(BytesOf(number)));
    };
    methods_.Add(absl::StrCat("/", kService, "/Unary"), server::MakeUnaryMethod(services_, {.decode = decode}));
    door_ = std::make_unique<server::HttpDoor>(server::HttpDoor::Options{.services = {kService}}, methods_, services_,
                                               server::CallEngine::Options{});
  }

  Outcome OnHeader(HttpRequest request, const server::HttpReply& reply) override {
    Outcome outcome = door_->OnHeader(request, reply);
    if (auto* call = std::get_if<std::shared_ptr<server::HttpCall>>(&outcome)) {
      return std::make_shared<SuiteCall>(*door_, answers_, std::move(request), reply, *call);
    }
    return WithoutDetails(std::get<HttpResponse>(std::move(outcome)));
  }

 private:
  Answers answers_;
  Executor executor_;
  server::Admission admission_;
  server::MemoryBudget memory_;
  server::RequestServices services_;
  server::MethodTable methods_;
  std::unique_ptr<server::HttpDoor> door_;
};

// Messages of the runner have their length before them, four bytes, the highest first.
bool ReadMessage(std::istream& in, google::protobuf::Message& message) {
  unsigned char prefix[4];
  if (!in.read(reinterpret_cast<char*>(prefix), sizeof prefix)) return false;
  std::string bytes((prefix[0] << 24) | (prefix[1] << 16) | (prefix[2] << 8) | prefix[3], '\0');
  return in.read(bytes.data(), static_cast<std::streamsize>(bytes.size())) && message.ParseFromString(bytes);
}

void WriteMessage(std::ostream& out, const google::protobuf::Message& message) {
  const std::string bytes = message.SerializeAsString();
  for (int shift = 24; shift >= 0; shift -= 8) out.put(static_cast<char>(bytes.size() >> shift));
  out << bytes << std::flush;
}

// The runner ends its servers by a signal, which also comes when the runner is gone.
sigset_t BlockSignals() {
  sigset_t ends;
  sigemptyset(&ends);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&ends, signal);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // Before there are threads, which inherit it.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  return ends;
}

absl::Status Serve(const sigset_t& ends) {
  suite::ServerCompatRequest wanted;
  if (!ReadMessage(std::cin, wanted)) return absl::InvalidArgumentError("stdin has no ServerCompatRequest");
  const TemporaryFolder folder;
  server::HttpServer::Options options{.flag = "the suite", .listen = "127.0.0.1:0", .bodies = true};
  if (wanted.use_tls()) {
    const bool mutual = !wanted.client_tls_cert().empty();
    auto tls =
        server::HttpTls::Load(folder.Write("identity.pem", wanted.server_creds().cert() + wanted.server_creds().key()),
                              mutual ? folder.Write("authorities.pem", wanted.client_tls_cert()) : "");
    if (!tls.ok()) return tls.status();
    options.tls = *std::move(tls);
  }
  server::Limits limits;
  if (wanted.message_receive_limit() > 0) limits.max_request_bytes = wanted.message_receive_limit();
  Suite service(limits);
  auto http = server::HttpServer::Start(options, service);
  if (!http.ok()) return http.status();
  suite::ServerCompatResponse here;
  here.set_host("127.0.0.1");
  here.set_port(static_cast<std::uint32_t>((*http)->port()));
  if (wanted.use_tls()) here.set_pem_cert(wanted.server_creds().cert());
  WriteMessage(std::cout, here);
  int signal = 0;
  sigwait(&ends, &signal);
  return absl::OkStatus();
}

}  // namespace
}  // namespace attend::testing

int main() {
  const absl::Status status = attend::testing::Serve(attend::testing::BlockSignals());
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
