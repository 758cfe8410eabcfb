#include "server/connect/http_door.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "server/connect/connect_protocol.h"
#include "server/connect/json_codec.h"
#include "server/connect/page.h"

namespace attend::server {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(1);

// How long the last answers have to leave before their connections are closed.
constexpr absl::Duration kFlushTime = absl::Milliseconds(50);

// `/attend.v1.AttentionService/Attend`.
bool IsPathOfCall(const std::string& path) {
  return std::count(path.begin(), path.end(), '/') == 2 && absl::StrContains(path, ".");
}

// Of `/package.Service/Method`; null when it is none.
const google::protobuf::MethodDescriptor* DescriptorOf(const std::string& path) {
  const std::string name = absl::StrReplaceAll(path.substr(1), {{"/", "."}});
  return google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
}

HttpResponse WithHeaders(HttpResponse answer, const HttpHeaders& headers) {
  answer.headers.insert(answer.headers.end(), headers.begin(), headers.end());
  return answer;
}

}  // namespace

HttpDoor::HttpDoor(const Options& options, const MethodTable& methods, const RequestServices& requests,
                   const CallEngine::Options& engine)
    : origins_(options.hosts, options.origins) {
  calls_.requests = &requests;
  calls_.authenticator = engine.authenticator;
  calls_.mutual_tls = engine.mutual_tls;
  calls_.proxies = engine.proxies;
  calls_.max_json_bytes = options.max_json_bytes;
  calls_.body_timeout = absl::FromChrono(options.http.body_timeout);
  calls_.on_started = engine.on_started;
  calls_.on_denied = engine.on_denied;
  calls_.on_finished = engine.on_finished;
  for (const std::string& path : methods.Paths()) {
    const MethodEntry* const entry = methods.Find(path);
    const auto* const descriptor = DescriptorOf(path);
    if (entry->request_method == nullptr || descriptor == nullptr) continue;
    const std::string& service = descriptor->service()->full_name();
    if (std::find(options.services.begin(), options.services.end(), service) == options.services.end()) continue;
    methods_.emplace(path, ConnectMethod{.entry = entry,
                                         .json = JsonMethod(*entry->request_method, *descriptor),
                                         .response = descriptor->output_type()});
  }
}

absl::StatusOr<std::unique_ptr<HttpDoor>> HttpDoor::Open(const Options& options, const MethodTable& methods,
                                                         const RequestServices& requests,
                                                         const CallEngine::Options& engine) {
  std::unique_ptr<HttpDoor> door(new HttpDoor(options, methods, requests, engine));
  auto http = HttpServer::Start(options.http, *door);
  if (!http.ok()) return http.status();
  door->http_ = *std::move(http);
  return door;
}

HttpService::Outcome HttpDoor::OnHeader(HttpRequest request, const HttpReply& reply) {
  HttpHeaders headers;
  if (auto answer = origins_.Answer(request, headers)) return *std::move(answer);
  if (const PageFile* const file = FindPageFile(request.path)) return ServePageFile(*file, request);
  if (IsPathOfCall(request.path)) return OnCall(std::move(request), std::move(headers), reply);
  return HttpResponse{.status = 404, .body = "there is no such page\n"};
}

HttpService::Outcome HttpDoor::OnCall(HttpRequest request, HttpHeaders headers, const HttpReply& reply) {
  if (request.method != "POST") {
    return WithHeaders({.status = 405, .allow = "POST", .body = "calls are made by POST\n"}, headers);
  }
  const std::string_view type = request.Header("content-type");
  if ((type != kJsonType && type != kProtoType) || request.CountHeader("content-type") != 1) {
    headers.emplace_back("accept-post", absl::StrCat(kJsonType, ", ", kProtoType));
    return WithHeaders({.status = 415, .body = "the content type must be application/json or application/proto\n"},
                       headers);
  }
  const auto method = methods_.find(request.path);
  return ConnectCall::Begin(calls_, method == methods_.end() ? nullptr : &method->second, std::move(request),
                            std::move(headers), reply);
}

bool HttpDoor::WaitForCalls(absl::Duration timeout) const {
  const absl::Time end = absl::Now() + timeout;
  while (calls_.calls.load(std::memory_order_acquire) != 0) {
    if (absl::Now() >= end) return false;
    absl::SleepFor(kLook);
  }
  return true;
}

void HttpDoor::FinishDrain(absl::Duration timeout) {
  if (WaitForCalls(timeout)) absl::SleepFor(std::min(timeout, kFlushTime));
  http_->Stop();
}

HttpDoor::~HttpDoor() {
  if (http_ == nullptr) return;
  StartDrain();   // No call begins that nobody would wait for.
  http_->Stop();  // Calls hear that they are cancelled; compute threads may hold some for a while.
  WaitForCalls(absl::InfiniteDuration());
}

}  // namespace attend::server
