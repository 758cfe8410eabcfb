#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/command_line/whole_numbers.h"
#include "server/config/flags.h"
#include "server/identity/principal.h"
#include "server/identity/trusted_proxies.h"

namespace attend::server {
namespace {

constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();
// Protobuf's own bound of a message, and what gRPC counts in.
constexpr std::int64_t kMaxMessageBytes = std::numeric_limits<int>::max();

// Durations are written as in 500ms, 10s, 5m, 1h30m and inf.
CLI::Option* AddDuration(CLI::App& app, const std::string& name, absl::Duration& value, const std::string& help,
                         absl::Duration least) {
  const auto parse = [name, &value, least](const std::string& text) {
    if (!absl::ParseDuration(text, &value) || value < least) {
      throw CLI::ValidationError(name, absl::StrCat("'", text, "' is not a duration of at least ",
                                                    absl::FormatDuration(least), ", such as 500ms, 10s, 5m or inf"));
    }
  };
  return app.add_option_function<std::string>(name, parse, help)
      ->type_name("DURATION")
      ->default_str(absl::FormatDuration(value));
}

CLI::Option* AddSize(CLI::App& app, const std::string& name, std::int64_t& value, const std::string& help,
                     std::int64_t most) {
  return app.add_option(name, value, help)->transform(formats::SizeUpTo(most))->type_name("SIZE");
}

void DeclareServing(CLI::App& app, ServerConfig& config) {
  app.add_option("--listen", config.listen,
                 "Address to serve on, host:port or unix:PATH; port 0: any free one. Repeatable")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->default_str(absl::StrJoin(config.listen, ","));
  app.add_option("--admin-listen", config.admin_listen,
                 "Address of the admin door, host:port: /metrics, /livez and /readyz over HTTP, in plaintext and for "
                 "everybody. Empty: none");
  app.add_option("--port-file", config.port_file,
                 "File to write the bound ports to, one a line, once calls are taken: those of --listen, the HTTP "
                 "door's, the admin door's");
  app.add_option("--threads", config.threads, "Compute threads; default: the cores this process may use")
      ->check(CLI::Range(1, 4096));
  app.add_option("--polling-threads", config.polling_threads,
                 "Threads that read and write connections; each has eleven more that stand in for one another while "
                 "connections occupy them")
      ->check(CLI::Range(1, 256));
  app.add_option("--instruction-set", config.instruction_set, "Vector instructions of the kernels")
      ->check(CLI::IsMember({"auto", "avx512", "avx2", "neon", "sse4", "baseline"}, CLI::ignore_case));
  app.add_option("--fast-kernels", config.fast_kernels,
                 "Kernels for requests of PRECISION_FAST: auto for processors known to be faster with them, on for all "
                 "that have the instructions, off to compute such requests exactly")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  app.add_option(
         "--inline-flops", config.inline_flops,
         "Requests of at most so many floating-point operations are computed on the polling thread, because handing "
         "them over would take longer; those of more than 64 KiB, and those for attention in JSON, never are. The "
         "default was measured with AVX-512")
      ->check(CLI::Range(0.0, 1e12));
  AddDuration(app, "--drain-wait", config.drain_wait,
              "On SIGTERM, how long to take calls after health went to NOT_SERVING", absl::ZeroDuration());
  AddDuration(app, "--drain-timeout", config.drain_timeout, "How long calls in flight may then take",
              absl::ZeroDuration());
  app.add_option("--log-format", config.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  app.add_option("--log-level", config.log_level, "Least level to log; debug has a line per call")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "warning", "error", "off"}));
}

void DeclareHttp(CLI::App& app, HttpConfig& http) {
  app.add_option(
      "--http-listen", http.listen,
      "Address of the HTTP door, host:port: Connect's unary calls in JSON or protobuf over HTTP/1.1, and the "
      "page. With TLS as --listen has it. Empty: none");
  app.add_option("--http-host", http.hosts,
                 "Name that requests to the HTTP door may give as their Host, besides localhost and loopback "
                 "addresses. Repeatable")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->default_str("");
  app.add_option("--http-allow-origin", http.allowed_origins,
                 "Origin whose pages may call the HTTP door, as https://example.org or http://localhost:3000. "
                 "Repeatable")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->default_str("");
  app.add_option("--http-services", http.services,
                 "What the HTTP door serves: attention for AttentionService without its stream, layers for GetLayer "
                 "and ListLayers")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->check(CLI::IsMember({"attention", "layers"}))
      ->default_str(absl::StrJoin(http.services, ","));
  AddSize(app, "--max-json-bytes", http.max_json_bytes, "Largest request, and largest response, in JSON",
          kMaxMessageBytes);
  app.add_flag("--playground", http.playground,
               "Try attention in a browser: opens the HTTP door on this machine alone, on a free port unless "
               "--http-listen says which, serves layers too, makes a layer called demo, and prints the page's address");
}

void DeclareLimits(CLI::App& app, Limits& limits) {
  AddSize(app, "--max-request-bytes", limits.max_request_bytes, "Largest serialized request", kMaxMessageBytes);
  AddSize(app, "--max-response-bytes", limits.max_response_bytes, "Largest serialized response", kMaxMessageBytes);
  app.add_option("--max-request-flops", limits.max_request_flops, "Most floating-point operations of one request")
      ->check(CLI::Range(1.0, 1e18));
  AddSize(app, "--max-request-memory-bytes", limits.max_request_memory_bytes,
          "Most memory that one request may need for inputs, outputs and scratch", kMaxInt64);
  app.add_option("--max-queued-requests", limits.max_queued_requests,
                 "Requests that may wait for a compute thread; further ones are refused with UNAVAILABLE")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option(
         "--max-stream-requests-in-flight", limits.max_stream_requests_in_flight,
         "Requests of one StreamAttend that are worked on or wait to be sent as answers; further ones stay unread")
      ->check(CLI::Range(1, 1 << 20));
  AddSize(app, "--max-memory-in-flight-bytes", limits.max_memory_in_flight_bytes,
          "Most memory of all requests and unread responses together; further requests are refused with UNAVAILABLE. "
          "Default: half the container's memory limit, or without one half the machine's memory and at most 4 GiB",
          std::int64_t{1} << 62);
}

void DeclareCalls(CLI::App& app, ServerConfig& config) {
  CallLimits& calls = config.calls;
  app.add_option("--max-connections", config.max_connections,
                 "Connections at a time to the gRPC door, and again to the HTTP door; further ones are closed at once. "
                 "At most what the limit of open files leaves, half of it for each door where both are open")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--max-calls", calls.max_calls,
                 "Calls in progress on all connections of the gRPC door; beyond it the call that has waited longest "
                 "for its first message is ended with UNAVAILABLE, or else the new one. Also the most connections to "
                 "the HTTP door, which have a call each")
      ->check(CLI::Range(1, 1 << 24));
  AddDuration(app, "--first-message-timeout", calls.first_message_timeout,
              "How long a call's first message may take to arrive whole", absl::Milliseconds(100));
  AddDuration(app, "--stalled-answer-timeout", calls.stalled_answer_timeout,
              "How long an answer may wait to be taken before its call is cancelled, besides the time for its bytes at "
              "--min-transfer-rate; a sixth, and no more, while others are refused for want of memory",
              absl::Milliseconds(100));
  AddSize(app, "--min-transfer-rate", calls.min_bytes_per_second,
          "Bytes a second that answers are taken at, and that an upload sends to keep its place when others wait",
          kMaxInt64);
}

void DeclareLayers(CLI::App& app, ServerConfig& config) {
  app.add_option(
      "--data-dir", config.data_dir,
      "Folder in which uploaded layers are kept, made when missing; one server at a time. Empty: they are kept "
      "in memory, until the server's end");
  AddSize(app, "--max-data-dir-bytes", config.max_data_dir_bytes,
          "Most bytes of all files in --data-dir, uploads under way included; further uploads are refused with "
          "RESOURCE_EXHAUSTED",
          std::int64_t{1} << 62);
  app.add_option("--max-layers", config.layers.max_layers, "Most layers that this server keeps")
      ->check(CLI::Range(0, 1 << 20));
  AddSize(app, "--max-layer-bytes", config.layers.max_layer_bytes, "Most bytes of one layer's .safetensors file",
          std::int64_t{1} << 40);
  AddSize(app, "--max-layers-bytes", config.layers.max_layers_bytes,
          "Most memory of all layers together. Default: a quarter of the container's memory limit, or without one a "
          "quarter of the machine's memory and at most 4 GiB",
          std::int64_t{1} << 62);
  app.add_option("--max-uploads", config.layers.max_uploads,
                 "Uploads of layers under way at a time; further ones are refused with UNAVAILABLE")
      ->check(CLI::Range(1, 1024));
}

void DeclareLayerSources(CLI::App& app, LayerSources& sources) {
  app.add_option(
         "--layer", sources.layers,
         "Layer to load at the start: NAME=FILE#PREFIX, with a .safetensors file, or the .index.json of a sharded "
         "one, and what comes before the layer's tensors in it; or NAME=init:SEED:EMBED_DIM. Repeatable")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->default_str(absl::StrJoin(sources.layers, ","));
  app.add_option("--layer-dir", sources.directory, "Folder with a folder for each layer, named as the layer");
  app.add_option("--layer-config", sources.configs,
                 "What a layer's file does not say: NAME=FILE.json or NAME={\"num_heads\": 12}, a LayerConfig in JSON. "
                 "Repeatable")
      ->allow_extra_args(false)
      ->default_str("");
  app.add_flag("--skip-broken-layers", sources.skip_broken,
               "Start without the layers that cannot be loaded, and log why, instead of not at all");
}

void DeclareTransport(CLI::App& app, TransportConfig& transport) {
  app.add_option("--max-concurrent-streams", transport.max_concurrent_streams, "Calls in progress per connection")
      ->check(CLI::Range(1, std::numeric_limits<int>::max()));
  AddDuration(app, "--keepalive-time", transport.keepalive_time, "Silence after which a client is pinged",
              absl::Seconds(1));
  AddDuration(app, "--keepalive-timeout", transport.keepalive_timeout, "How long a ping may remain unanswered",
              absl::Seconds(1));
  AddDuration(app, "--min-ping-interval", transport.min_ping_interval, "How often clients may ping",
              absl::ZeroDuration());
  AddDuration(app, "--max-connection-idle", transport.max_connection_idle, "When connections without calls are closed",
              absl::Seconds(1));
  AddDuration(app, "--max-connection-age", transport.max_connection_age, "When connections are asked to go elsewhere",
              absl::Seconds(1));
  AddDuration(app, "--max-connection-age-grace", transport.max_connection_age_grace, "How long calls may then take",
              absl::ZeroDuration());
  AddDuration(app, "--handshake-timeout", transport.handshake_timeout, "Time for a connection's handshakes",
              absl::Milliseconds(100));
  app.add_option("--max-metadata-bytes", transport.max_metadata_bytes, "Metadata of one call, in bytes")
      ->check(CLI::Range(1024, 1 << 20));
  app.add_flag("--end-unexplained-connections", transport.end_unexplained_connections,
               "End connections whose bytes become no calls and take memory or a polling thread; "
               "--end-unexplained-connections=false: do not")
      ->default_str("true");
  AddSize(
      app, "--transport-memory-bytes", transport.memory_bytes,
      "Memory of the transport's buffers over all connections. Default: an eighth of the container's memory limit or "
      "of the machine's memory, at most 1 GiB",
      kMaxInt64);
  app.add_option("--grpc-channel-argument", transport.channel_arguments,
                 "Any gRPC channel argument as key=value. Repeatable")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->default_str(absl::StrJoin(transport.channel_arguments, ","));
}

void DeclareTls(CLI::App& app, TlsConfig& tls) {
  app.add_option("--tls-cert", tls.certificate_path, "Certificate chain of this server, a PEM file; turns TLS on");
  app.add_option("--tls-key", tls.key_path, "Its private key, a PEM file");
  app.add_option("--tls-client-ca", tls.client_ca_path,
                 "Authorities of client certificates, a PEM file; clients must then present one");
  app.add_option(
      "--tls-client-crl", tls.client_crl_path,
      "Lists of revoked client certificates, a PEM file signed by authorities of --tls-client-ca; connections "
      "with such a certificate are refused");
  AddDuration(app, "--tls-refresh-interval", tls.refresh_interval, "How often the files are looked at again",
              absl::Seconds(1));
}

void DeclareIdentity(CLI::App& app, IdentityConfig& identity) {
  app.add_option(
      "--principals", identity.principals_path,
      "JSON file of principals: names, roles, identities of client certificates and hashes of bearer tokens; "
      "looked at again as the TLS files are");
  app.add_option_function<std::string>(
         "--anonymous-roles", [&identity](const std::string& roles) { identity.anonymous_roles = roles; },
         "What callers without a credential may do: compute, layers, observe, separated by commas, or none. "
         "Default: all on this machine, compute,observe from elsewhere")
      ->allow_extra_args(false);
  app.add_option("--trusted-proxies", identity.trusted_proxies,
                 "Proxies that say who calls, by x-forwarded-client-cert: addresses, networks (10.0.0.0/8), unix, or "
                 "identities of their certificates (uri:, dns:, cn:). Repeatable")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->default_str("");
  app.add_flag("--insecure", identity.insecure,
               "Serve plaintext beyond this machine: whoever reads the network reads tensors and tokens");
}

absl::Status PlaintextBeyond(const char* flag, const std::string& listen) {
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": '", listen,
                   "' can be reached from other machines, and without TLS whoever reads the network reads tensors and "
                   "tokens: give --tls-cert and --tls-key, or --insecure where the network is trusted"));
}

absl::Status CheckIdentityConfig(const ServerConfig& config) {
  const absl::StatusOr<std::optional<Roles>> roles = AnonymousRoles(config.identity);
  if (!roles.ok()) return roles.status();
  if (!config.tls.client_ca_path.empty() && roles->has_value() && !(*roles)->empty()) {
    return absl::InvalidArgumentError(
        "--anonymous-roles: with --tls-client-ca every caller shows a certificate, so that nobody would have these "
        "roles; say with --principals what certificates may do, or leave the flag out");
  }
  const absl::StatusOr<TrustedProxies> proxies = TrustedProxies::Parse(config.identity.trusted_proxies);
  if (!proxies.ok()) return absl::InvalidArgumentError(absl::StrCat("--trusted-proxies: ", proxies.status().message()));
  if (config.identity.insecure || !config.tls.certificate_path.empty()) return absl::OkStatus();
  for (const std::string& listen : config.listen) {
    if (!IsLoopback(listen)) return PlaintextBeyond("--listen", listen);
  }
  if (!config.http.listen.empty() && !IsLoopback(config.http.listen)) {
    return PlaintextBeyond("--http-listen", config.http.listen);
  }
  return absl::OkStatus();
}

// Whether gRPC could serve on `address`: host:port, where the host is a name, an IPv4 address or an IPv6 address in
// brackets, or the path of a Unix socket.
bool IsAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return address.size() > 5;
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) return false;
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  std::uint32_t number = 0;
  if (!std::all_of(port.begin(), port.end(), absl::ascii_isdigit) || !absl::SimpleAtoi(port, &number) ||
      number > 65535) {
    return false;
  }
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  return !host.empty() && host.find_first_of(bracketed ? "[]/ " : "[]/: ") == std::string::npos;
}

// `unix:///run/s` is `unix:/run/s`.
std::string OneSpelling(const std::string& address) {
  if (!absl::StartsWith(address, "unix:")) return address;
  std::string path;
  for (const char c : address.substr(5)) {
    if (c != '/' || path.empty() || path.back() != '/') path.push_back(c);
  }
  return absl::StrCat("unix:", path);
}

absl::Status CheckDistinct(const std::vector<std::string>& addresses) {
  std::set<std::string> seen;
  for (const std::string& address : addresses) {
    if (absl::EndsWith(address, ":0") || seen.insert(OneSpelling(address)).second) continue;
    return absl::InvalidArgumentError(absl::StrCat("--listen: '", address, "' is given twice; give it once"));
  }
  return absl::OkStatus();
}

absl::Status NoAddress(const char* flag, const std::string& address) {
  return absl::InvalidArgumentError(absl::StrCat(
      flag, ": '", address, "' is not host:port with a port from 0 to 65535, as in 0.0.0.0:50051 or [::1]:0"));
}

absl::Status CheckAddresses(const std::vector<std::string>& addresses) {
  if (addresses.empty()) return absl::InvalidArgumentError("--listen: at least one address is needed");
  for (const std::string& address : addresses) {
    if (!IsAddress(address)) return NoAddress("--listen", address);
  }
  return CheckDistinct(addresses);
}

// An HTTP door's address, which none of `others` may be.
absl::Status CheckDoorAddress(const char* flag, const std::string& address, const std::vector<std::string>& others) {
  if (address.empty()) return absl::OkStatus();
  if (!IsAddress(address) || absl::StartsWith(address, "unix:")) return NoAddress(flag, address);
  if (absl::EndsWith(address, ":0") || std::find(others.begin(), others.end(), address) == others.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": '", address, "' is an address of another door too; give it another port"));
}

// A name without a port: what is compared with Host.
bool IsHostName(const std::string& name) {
  return !name.empty() && (name.front() == '[') == (name.back() == ']') &&
         std::all_of(name.begin(), name.end(), [&name](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' ||
                  (name.front() == '[' && (c == ':' || c == '[' || c == ']'));
         });
}

// `https://example.org:8443`: no path, no wildcard.
bool IsOrigin(const std::string& origin) {
  const std::size_t scheme = origin.find("://");
  if (scheme == std::string::npos || scheme == 0) return false;
  const std::string rest = origin.substr(scheme + 3);
  return !rest.empty() && rest.find_first_of("/?#*@ ") == std::string::npos;
}

absl::Status CheckHttp(const HttpConfig& http) {
  if (http.playground && !http.listen.empty() && !IsLoopback(http.listen)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--playground: --http-listen '", http.listen, "' can be reached from other machines"));
  }
  if (http.services.empty()) return absl::InvalidArgumentError("--http-services: name at least one");
  for (const std::string& host : http.hosts) {
    if (!IsHostName(host)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--http-host: '", host, "' is no name of a host; give it without scheme and port"));
    }
  }
  for (const std::string& origin : http.allowed_origins) {
    if (!IsOrigin(origin)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--http-allow-origin: '", origin, "' is no origin such as https://example.org or http://localhost:3000"));
    }
  }
  const bool unused = http.listen.empty() && !http.playground && (!http.hosts.empty() || !http.allowed_origins.empty());
  return unused ? absl::InvalidArgumentError("--http-host and --http-allow-origin need --http-listen")
                : absl::OkStatus();
}

}  // namespace

void DeclareOptions(CLI::App& app, ServerConfig& config) {
  app.option_defaults()->always_capture_default();
  DeclareServing(app, config);
  DeclareHttp(app, config.http);
  DeclareLimits(app, config.limits);
  DeclareCalls(app, config);
  DeclareLayers(app, config);
  DeclareLayerSources(app, config.layer_sources);
  DeclareTransport(app, config.transport);
  DeclareTls(app, config.tls);
  DeclareIdentity(app, config.identity);
  formats::ReadIntegersInDecimal(app);
}

absl::Status ValidateConfig(const ServerConfig& config) {
  // CLI11's ranges let NaN pass.
  if (std::isnan(config.limits.max_request_flops)) return absl::InvalidArgumentError("--max-request-flops is NaN");
  if (std::isnan(config.inline_flops)) return absl::InvalidArgumentError("--inline-flops is NaN");
  if (absl::Status addresses = CheckAddresses(config.listen); !addresses.ok()) return addresses;
  std::vector<std::string> taken = config.listen;
  if (absl::Status http = CheckDoorAddress("--http-listen", config.http.listen, taken); !http.ok()) return http;
  taken.push_back(config.http.listen);
  if (absl::Status admin = CheckDoorAddress("--admin-listen", config.admin_listen, taken); !admin.ok()) return admin;
  if (absl::Status http = CheckHttp(config.http); !http.ok()) return http;
  if (config.transport.memory_bytes < config.limits.max_request_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--transport-memory-bytes=", config.transport.memory_bytes,
        " is less than --max-request-bytes=", config.limits.max_request_bytes, ": such a request could never arrive"));
  }
  if (config.tls.certificate_path.empty() != config.tls.key_path.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key must be given together");
  }
  if (!config.tls.client_ca_path.empty() && config.tls.certificate_path.empty()) {
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-cert and --tls-key");
  }
  if (!config.tls.client_crl_path.empty() && config.tls.client_ca_path.empty()) {
    return absl::InvalidArgumentError("--tls-client-crl needs --tls-client-ca");
  }
  if (absl::Status identity = CheckIdentityConfig(config); !identity.ok()) return identity;
  for (const std::string& argument : config.transport.channel_arguments) {
    if (argument.find('=') == std::string::npos || argument.front() == '=') {
      return absl::InvalidArgumentError(
          absl::StrCat("--grpc-channel-argument: '", argument, "' is not of the form key=value"));
    }
  }
  return absl::OkStatus();
}

}  // namespace attend::server
