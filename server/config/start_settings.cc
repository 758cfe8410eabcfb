#include "server/config/start_settings.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attend::server {
namespace {

// How often gRPC looks at what was staged for it: the least that it can.
constexpr unsigned kStagedRefreshSeconds = 1;

// gRPC reads INT_MAX as "never".
int Milliseconds(absl::Duration duration) {
  constexpr int kNever = std::numeric_limits<int>::max();
  return static_cast<int>(std::min<std::int64_t>(absl::ToInt64Milliseconds(duration), kNever));
}

// gRPC keeps the first of two values of one argument, so all are collected before any is set.
using ChannelArguments = std::map<std::string, std::variant<int, std::string>>;

ChannelArguments DefaultArguments(const TransportConfig& config) {
  return {
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_concurrent_streams},
      {GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(config.keepalive_time)},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(config.keepalive_timeout)},
      // For the server's own pings and for the clients' alike: an idle connection may be checked.
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, Milliseconds(config.min_ping_interval)},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(config.max_connection_idle)},
      {GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(config.max_connection_age)},
      {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(config.max_connection_age_grace)},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(config.handshake_timeout)},
      {GRPC_ARG_MAX_METADATA_SIZE, config.max_metadata_bytes},
      // Nothing here serves channelz, so its bookkeeping for every call and connection is spared.
      {GRPC_ARG_ENABLE_CHANNELZ, 0},
      // None: the unary path counts the bytes itself, so that the error can name the flag. A limit here would not save
      // memory: gRPC 1.51 buffers a message to its end before it compares its size (measured: a limit of 1 MiB refused
      // a message of 64 MiB after all of it had arrived). What bounds memory is the quota below: at its end the
      // connection's calls are reset with ENHANCE_YOUR_CALM.
      {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1},
      // Compressed messages are refused (call_engine.cc). What would inflate and deflate them costs each call 1 % of
      // its instructions.
      {GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0},
      {GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
  };
}

void Override(const std::string& argument, ChannelArguments& arguments) {
  const std::size_t equals = argument.find('=');
  const std::string value = argument.substr(equals + 1);
  int number = 0;
  auto& entry = arguments[argument.substr(0, equals)];
  if (absl::SimpleAtoi(value, &number)) {
    entry = number;
  } else {
    entry = value;
  }
}

// Plaintext, TLS or mTLS.
std::shared_ptr<grpc::ServerCredentials> MakeCredentials(const TlsConfig& config, const TlsPair* pair) {
  if (pair == nullptr) return grpc::InsecureServerCredentials();
  const bool mutual = !config.client_ca_path.empty();
  using grpc::experimental::FileWatcherCertificateProvider;
  const std::string identity = pair->identity_path();
  auto provider = mutual ? std::make_shared<FileWatcherCertificateProvider>(
                               identity, identity, pair->authorities_path(), kStagedRefreshSeconds)
                         : std::make_shared<FileWatcherCertificateProvider>(identity, identity, kStagedRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (mutual) {
    options.watch_root_certs();
#ifndef __clang_analyzer__  // It takes what gRPC's core will own, in gRPC's own header, for a leak.
    options.set_certificate_verifier(
        grpc::experimental::ExternalCertificateVerifier::Create<RevocationVerifier>(pair->revocations()));
#endif
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<InstructionSet> ChooseInstructionSet(const std::string& name) {
  if (name == "auto") return BestInstructionSet();
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  const std::optional<InstructionSet> chosen = ParseInstructionSet(name);
  if (chosen.has_value() && std::find(supported.begin(), supported.end(), *chosen) != supported.end()) return *chosen;
  std::string names;
  for (const InstructionSet set : supported) absl::StrAppend(&names, " ", std::string(InstructionSetName(set)));
  return absl::InvalidArgumentError(
      absl::StrCat("--instruction-set: this machine does not run ", name, "; it runs", names));
}

absl::StatusOr<FastKernels> ChooseFast(const std::string& name, InstructionSet instruction_set) {
  const std::optional<FastKernelsMode> mode = ParseFastKernelsMode(name);
  if (!mode) return absl::InvalidArgumentError(absl::StrCat("--fast-kernels is ", name, "; it is auto, on or off"));
  const FastKernels fast = ChooseFastKernels(*mode, instruction_set);
  if (*mode != FastKernelsMode::kOn || fast != FastKernels::kNone) return fast;
  return absl::InvalidArgumentError(absl::StrCat(
      "--fast-kernels=on: there are no fast kernels for this processor with --instruction-set ",
      std::string(InstructionSetName(instruction_set)), "; they need AVX-512 with BF16. Leave it at auto"));
}

}  // namespace

void ApplyTransportSettings(const TransportConfig& config, grpc::ServerBuilder& builder) {
  ChannelArguments arguments = DefaultArguments(config);
  for (const std::string& argument : config.channel_arguments) Override(argument, arguments);
  for (const auto& [key, value] : arguments) {
    std::visit([&builder, &key = key](const auto& v) { builder.AddChannelArgument(key, v); }, value);
  }
  builder.SetResourceQuota(grpc::ResourceQuota("attend").Resize(static_cast<std::size_t>(config.memory_bytes)));
}

absl::StatusOr<StartSettings> ResolveStartSettings(const ServerConfig& config) {
  const absl::StatusOr<InstructionSet> instruction_set = ChooseInstructionSet(config.instruction_set);
  if (!instruction_set.ok()) return instruction_set.status();
  const absl::StatusOr<FastKernels> fast = ChooseFast(config.fast_kernels, *instruction_set);
  if (!fast.ok()) return fast.status();
  std::shared_ptr<TlsPair> pair;
  if (!config.tls.certificate_path.empty()) {
    absl::StatusOr<std::shared_ptr<TlsPair>> loaded = TlsPair::Load(config.tls);
    if (!loaded.ok()) return loaded.status();
    pair = *std::move(loaded);
  }
  const absl::StatusOr<std::optional<Roles>> anonymous_roles = AnonymousRoles(config.identity);
  if (!anonymous_roles.ok()) return anonymous_roles.status();
  absl::StatusOr<std::unique_ptr<Authenticator>> authenticator =
      Authenticator::Create({.principals_path = config.identity.principals_path, .anonymous_roles = *anonymous_roles});
  if (!authenticator.ok()) return authenticator.status();
  absl::StatusOr<TrustedProxies> proxies = TrustedProxies::Parse(config.identity.trusted_proxies);
  if (!proxies.ok()) return proxies.status();
  return StartSettings{.kernels = {*instruction_set, *fast},
                       .credentials = MakeCredentials(config.tls, pair.get()),
                       .authenticator = *std::move(authenticator),
                       .proxies = *std::move(proxies),
                       .tls = pair};
}

}  // namespace attend::server
