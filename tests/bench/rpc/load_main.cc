// attend-load: sends one request again and again and prints what came back as one line of JSON.
//
//   attend-load --target 127.0.0.1:50051 --method /attend.v1.AttentionService/Attend --request request.bin
//
// The request file holds one serialized message; with --stream true the method is StreamAttend, and the message is what
// each of its requests carries. Times are in milliseconds. rpc_bench.py drives it; by hand it is the tool for loads at
// which ghz itself would be the bottleneck.

#include <absl/synchronization/mutex.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "client/lib/connect_errno.h"
#include "tests/bench/rpc/load_run.h"
#include "tests/bench/rpc/stream_run.h"

namespace {

using attend::bench::LoadOptions;
using attend::bench::LoadResult;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

LoadResult Run(grpc::GenericStub& stub, const std::string& request, bool stream, const LoadOptions& options) {
  if (stream) return attend::bench::RunStreamLoad(stub, request, options);
  const grpc::Slice slice(request);
  return attend::bench::RunLoad(stub, grpc::ByteBuffer(&slice, 1), options);
}

nlohmann::json Percentiles(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&values](double q) {
    return values[std::min(values.size() - 1, static_cast<std::size_t>(q * static_cast<double>(values.size())))];
  };
  return {{"count", values.size()}, {"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}, {"max", values.back()}};
}

nlohmann::json ToJson(const LoadResult& result) {
  nlohmann::json json = {{"seconds", result.seconds},
                         {"not_started", result.not_started},
                         {"drain_seconds", result.drain_seconds},
                         {"all_calls", result.all_calls},
                         {"codes", nlohmann::json::object()}};
  for (const auto& [code, latencies] : result.latencies_by_code)
    json["codes"][std::to_string(code)] = Percentiles(latencies);
  if (!result.compute.empty()) json["compute"] = Percentiles(result.compute);
  const auto ok = result.calls_by_code.find(0);
  json["rps"] = ok == result.calls_by_code.end() ? 0.0 : static_cast<double>(ok->second) / result.seconds;
  return json;
}

// Files in PEM form; all empty for plaintext.
struct Tls {
  std::string authority, certificate, key;
};

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Tls& tls) {
  if (tls.authority.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options{ReadFile(tls.authority), "", ""};
  if (!tls.certificate.empty()) options.pem_cert_chain = ReadFile(tls.certificate);
  if (!tls.key.empty()) options.pem_private_key = ReadFile(tls.key);
  return grpc::SslCredentials(options);
}

std::shared_ptr<grpc::Channel> Connect(const std::string& target, const Tls& tls) {
  attend::client::internal::ReadProcessorFacts();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(target, Credentials(tls), arguments);
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // Debian's build has it on; it costs time.
  CLI::App app("Sends one request again and again and prints what came back as JSON");
  LoadOptions options;
  std::string target;
  std::string request_file;
  app.add_option("--target", target, "Server, host:port")->required();
  app.add_option("--method", options.method, "Full method path")->required();
  app.add_option("--request", request_file, "File with one serialized request")->required()->check(CLI::ExistingFile);
  app.add_option("--concurrency", options.concurrency, "Calls in flight")->check(CLI::Range(1, 100000));
  app.add_option("--rate", options.rate, "Calls per second; 0: as many as come back")->check(CLI::NonNegativeNumber);
  app.add_option("--warmup", options.warmup_seconds, "Seconds not counted")->check(CLI::NonNegativeNumber);
  app.add_option("--seconds", options.seconds, "Seconds counted")->check(CLI::PositiveNumber);
  app.add_option("--deadline", options.deadline_seconds, "Seconds each call may take")->check(CLI::PositiveNumber);
  app.add_option("--cost-hint", options.cost_hint, "Floating-point operations to announce; none by default");
  app.add_option("--token", options.token, "Bearer token of each call; none by default");
  Tls tls;
  app.add_option("--tls-ca", tls.authority, "Authorities of the server's certificate; turns TLS on");
  app.add_option("--tls-cert", tls.certificate, "Client certificate");
  app.add_option("--tls-key", tls.key, "Its key");
  bool stream = false;
  app.add_option("--stream", stream, "true: send all requests over one StreamAttend, --concurrency of them in flight");
  CLI11_PARSE(app, argc, argv);

  grpc::GenericStub stub(Connect(target, tls));
  std::cout << ToJson(Run(stub, ReadFile(request_file), stream, options)) << std::endl;
  return 0;
}
