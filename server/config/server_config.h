// Everything an operator can set, as data. The defaults here are the defaults of the flags; server/config/flags.h reads
// them from the command line, the environment and a file.
#ifndef ATTEND_SERVER_CONFIG_SERVER_CONFIG_H_
#define ATTEND_SERVER_CONFIG_SERVER_CONFIG_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/runtime/cpu.h"
#include "server/base/limits.h"
#include "server/identity/principal.h"

namespace attend::server {

// What bounds this process's memory, in bytes; each empty where nothing is known of it.
struct MemoryBounds {
  std::optional<std::int64_t> container = std::nullopt;  // See CgroupMemoryLimit.
  std::optional<std::int64_t> machine = std::nullopt;    // All that the machine has, for whomever.

  // The tighter of the two.
  std::optional<std::int64_t> tightest() const;
};
MemoryBounds ReadMemoryBounds();

// The defaults of flags by what bounds memory. A container is the server's own, and a machine is not: where no
// container limits, they are also no more than the numbers below.

// --transport-memory-bytes: an eighth and at most 1 GiB, which it is where nothing limits.
std::int64_t DefaultTransportBytes(const MemoryBounds& bounds = ReadMemoryBounds());

// --max-request-bytes: 256 MiB, or less where the transport could not hold it.
std::int64_t DefaultRequestBytes(const MemoryBounds& bounds = ReadMemoryBounds());

// --max-memory-in-flight-bytes: a half, because the other half is for layers, the transport, scratch that is being
// taken and what an allocator keeps; without a container at most 4 GiB.
std::int64_t DefaultMemoryInFlightBytes(const MemoryBounds& bounds = ReadMemoryBounds());

// --max-layers-bytes: a quarter; without a container at most 4 GiB.
std::int64_t DefaultLayersBytes(const MemoryBounds& bounds = ReadMemoryBounds());

// Settings of the HTTP/2 transport; each corrects a default of gRPC that does not suit a server that others depend on.
struct TransportConfig {
  // Calls in progress per connection; further ones wait in the client. gRPC's own default, no limit, lets one peer
  // open streams until memory ends (CVE-2023-44487).
  int max_concurrent_streams = 256;
  // Pings to clients that are silent, so that half-open connections are found. gRPC: 2 h.
  absl::Duration keepalive_time = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  // How often a client may ping before it is sent away with `too_many_pings`, also without calls. gRPC: 5 min, which
  // cuts off clients with ordinary keepalive settings.
  absl::Duration min_ping_interval = absl::Seconds(10);
  // Connections without calls are closed after this time. gRPC: never.
  absl::Duration max_connection_idle = absl::Minutes(15);
  // Connections are asked to go elsewhere at this age, so that clients behind a load balancer find new servers; calls
  // still running at the end of the grace are cancelled. gRPC: never.
  absl::Duration max_connection_age = absl::Minutes(30);
  absl::Duration max_connection_age_grace = absl::Minutes(5);
  // Time for TLS and the first HTTP/2 frames of a connection. gRPC: 120 s.
  absl::Duration handshake_timeout = absl::Seconds(10);
  // Metadata of one call, in bytes. gRPC: 8 KiB. As HTTP/2 has it, a limit announced in SETTINGS binds a peer once it
  // has acknowledged it: gRPC 1.51 accepts more from one that never does.
  int max_metadata_bytes = 16 << 10;
  // Whether ConnectionGuard ends connections whose bytes become no calls.
  bool end_unexplained_connections = true;
  // Memory of the transport's own buffers, in bytes, over all connections; at least Limits::max_request_bytes. Beyond
  // it connections are refused and calls reset. The only bound that gRPC 1.51 puts on messages that are too large.
  std::int64_t memory_bytes = DefaultTransportBytes();
  // Any other channel argument, as `key=value`; an integer where the value is one.
  std::vector<std::string> channel_arguments;
};

// Files in PEM form; they are watched, so that renewed certificates are used without a restart. All empty: plaintext.
struct TlsConfig {
  std::string certificate_path;  // The server's certificate chain.
  std::string key_path;          // Its private key.
  std::string client_ca_path;    // When given, clients must present a certificate signed by one of these (mTLS).
  std::string client_crl_path;   // Lists of those that are revoked.
  absl::Duration refresh_interval = absl::Seconds(10);  // How often the files are looked at; whole seconds.
};

// Who may call what.
struct IdentityConfig {
  std::string principals_path;  // --principals; empty: none.
  // --anonymous-roles; nothing: all on this machine, compute and observe from elsewhere. An empty text: none.
  std::optional<std::string> anonymous_roles;
  std::vector<std::string> trusted_proxies;  // --trusted-proxies.
  bool insecure = false;                     // --insecure: plaintext beyond this machine.
};

// The door for browsers and other callers by HTTP/1.1.
struct HttpConfig {
  std::string listen;                                 // --http-listen; empty: none.
  std::vector<std::string> hosts;                     // --http-host: names besides those of this machine's loopback.
  std::vector<std::string> allowed_origins;           // --http-allow-origin
  std::vector<std::string> services = {"attention"};  // --http-services: `attention`, `layers`.
  std::int64_t max_json_bytes = std::int64_t{16} << 20;
  bool playground = false;  // --playground, see MakePlayground.
};

// Where the layers of the server's own configuration come from.
struct LayerSources {
  std::vector<std::string> layers;   // --layer: NAME=FILE[#PREFIX], NAME=init:SEED:EMBED_DIM.
  std::vector<std::string> configs;  // --layer-config: NAME=FILE.json, NAME={...}.
  std::string directory;             // --layer-dir; empty for none.
  bool skip_broken = false;          // --skip-broken-layers.
};

// What --anonymous-roles says; nothing where it says nothing. Errors: INVALID_ARGUMENT naming the flag.
absl::StatusOr<std::optional<Roles>> AnonymousRoles(const IdentityConfig& identity);

// The container's memory limit in bytes (cgroup v2 `memory.max`, v1 `memory.limit_in_bytes`; the tightest along the
// path to the root), read below any root, for tests: `cgroup_root` stands for /sys/fs/cgroup and `self_cgroup` is the
// text of /proc/self/cgroup. Empty when nothing limits.
std::optional<std::int64_t> CgroupMemoryLimit(const std::string& cgroup_root, std::string_view self_cgroup);

// Whether `listen` can be reached from this machine alone: localhost, an address of 127.0.0.0/8, [::1] or a Unix
// socket.
bool IsLoopback(const std::string& listen);

struct ServerConfig {
  std::vector<std::string> listen = {"127.0.0.1:50051"};
  std::string admin_listen;  // Where /metrics, /livez and /readyz are served; empty: nowhere.
  HttpConfig http;
  std::string port_file;  // Where the bound ports are written, one a line; empty: nowhere.
  int threads = AvailableCores();
  // One serves about 50 k small calls a second, and has others that stand in for it (server/rpc/poller.h).
  int polling_threads = std::clamp(AvailableCores() / 4, 1, 8);
  std::string instruction_set = "auto";
  std::string fast_kernels = "auto";  // Also `on` or `off`.
  // Measured: handing a job to another thread and back costs about 40 us of processor time, in which a core with
  // AVX-512 does 5e6 floating-point operations; up to 4e6 both throughput and latency are better without.
  double inline_flops = 4e6;
  Limits limits = {.max_request_bytes = DefaultRequestBytes(),
                   .max_response_bytes = DefaultRequestBytes(),
                   .max_memory_in_flight_bytes = DefaultMemoryInFlightBytes()};
  CallLimits calls;
  int max_connections = 16384;  // Lower where the system gives this process fewer descriptors.
  std::string data_dir;         // Where uploaded layers are kept; empty: in memory, until the server's end.
  std::int64_t max_data_dir_bytes = std::int64_t{16} << 30;
  LayerLimits layers = {.max_layers_bytes = DefaultLayersBytes()};
  LayerSources layer_sources;
  TransportConfig transport;
  TlsConfig tls;
  IdentityConfig identity;
  // On SIGTERM: how long calls are still taken after health went to NOT_SERVING, so that load balancers notice ...
  absl::Duration drain_wait = absl::Seconds(1);
  // ... and how long calls in flight may then take. The sum should be below Kubernetes' 30 s of termination grace.
  absl::Duration drain_timeout = absl::Seconds(25);
  std::string log_format = "text";
  std::string log_level = "info";
};

// What a server with this configuration may come to hold, whoever calls it, in bytes.
struct MemoryPlan {
  std::int64_t in_flight;  // --max-memory-in-flight-bytes
  std::int64_t layers;     // --max-layers-bytes
  std::int64_t transport;  // --transport-memory-bytes
  std::int64_t process;    // Everything else: the program, its threads, buffers that are kept for the next request.

  // Both in [0, 2^63 - 1], also where a part alone is that much.
  std::int64_t sum() const;
  // What budgets and layers do not count: transport and process.
  std::int64_t uncounted() const;
  // Whether it is more than there is.
  bool Exceeds(const MemoryBounds& bounds) const;
  // A sentence with the parts, the sum and, if it is known, what they are of.
  std::string Text(const MemoryBounds& bounds) const;
};
MemoryPlan PlanMemory(const ServerConfig& config);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONFIG_SERVER_CONFIG_H_
