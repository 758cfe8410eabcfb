// Configuration: precedence, names, ranges, and files that read back.
#include "server/config/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/protocol.h"
#include "tests/support/status_message.h"

namespace attend::server {
namespace {

using ::attend::testing::Message;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t kMaxInt64 = std::numeric_limits<std::int64_t>::max();

// A file that is gone at the end of the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    char path[] = "/tmp/attend-flags-test-XXXXXX";
    close(mkstemp(path));
    path_ = path;
    std::ofstream(path_) << text;
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(FlagsTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  const TemporaryFile file("max-queued-requests = 3\n");
  const std::string config = "--config=" + file.path();
  struct Case {
    std::vector<std::string> arguments;
    Environment environment;
    int expected;
  };
  const Environment variable = {{"ATTEND_MAX_QUEUED_REQUESTS", "2"}};
  const std::vector<Case> cases = {
      {{}, {}, Limits().max_queued_requests},
      {{config}, {}, 3},
      {{}, variable, 2},
      {{config}, variable, 2},
      {{"--max-queued-requests=1"}, {}, 1},
      {{config, "--max-queued-requests=1"}, {}, 1},
      {{"--max-queued-requests=1"}, variable, 1},
      {{config, "--max-queued-requests", "1"}, variable, 1},
      {{}, {{"ATTEND_CONFIG", file.path()}}, 3},
      {{}, {{"ATTEND_MAX_QUEUED_REQUESTS", ""}}, Limits().max_queued_requests},
  };
  for (const Case& c : cases) {
    const auto parsed = ParseFlags(c.arguments, c.environment);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->config.limits.max_queued_requests, c.expected)
        << ::testing::PrintToString(c.arguments) << ::testing::PrintToString(c.environment);
  }
}

TEST(FlagsTest, AnEmptyValueTurnsNothingOff) {
  for (const char* name :
       {"tls-cert", "tls-client-ca", "tls-client-crl", "principals", "trusted-proxies", "http-host", "layer-dir"}) {
    const std::string flag = absl::StrCat("--", name);
    const TemporaryFile file(absl::StrCat(name, " = \"\"\n"));
    const std::vector<std::vector<std::string>> command_lines = {
        {flag, ""}, {flag + "="}, {flag + "=", "--threads=1"}, {"--config", file.path()}};
    for (const std::vector<std::string>& arguments : command_lines) {
      EXPECT_THAT(Message(ParseFlags(arguments, {}).status()), HasSubstr(flag + " has an empty value"))
          << ::testing::PrintToString(arguments);
    }
  }
  EXPECT_THAT(Message(ParseFlags({"--config", ""}, {}).status()), HasSubstr("--config has an empty value"));
}

TEST(FlagsTest, AnEmptyValueIsNoneWhereTheHelpSaysSo) {
  const TemporaryFile file("data-dir = \"/d\"\nadmin-listen = \"127.0.0.1:1\"\nhttp-listen = \"127.0.0.1:2\"\n");
  const auto parsed =
      ParseFlags({"--config", file.path(), "--data-dir", "", "--admin-listen", "", "--http-listen", ""}, {});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config.data_dir, "");
  EXPECT_EQ(parsed->config.admin_listen, "");
  EXPECT_EQ(parsed->config.http.listen, "");
  EXPECT_TRUE(ParseFlags({"--anonymous-roles", ""}, {}).ok());
}

TEST(FlagsTest, EveryKindOfValueIsReadFromEachSource) {
  const TemporaryFile file(
      "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n"
      "drain-wait = \"1500ms\"\n"
      "max-request-bytes = \"3MiB\"\n"
      "log-format = \"json\"\n");
  const auto from_file = ParseFlags({"--config", file.path()}, {});
  const auto from_environment = ParseFlags({}, {{"ATTEND_LISTEN", "127.0.0.1:1,[::1]:2"},
                                                {"ATTEND_DRAIN_WAIT", "1500ms"},
                                                {"ATTEND_MAX_REQUEST_BYTES", "3MiB"},
                                                {"ATTEND_LOG_FORMAT", "json"}});
  const auto from_flags = ParseFlags({"--listen=127.0.0.1:1", "--listen", "[::1]:2", "--drain-wait=1.5s",
                                      "--max-request-bytes=3145728", "--log-format", "json"},
                                     {});
  for (const auto& parsed : {from_file, from_environment, from_flags}) {
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_THAT(parsed->config.listen, ElementsAre("127.0.0.1:1", "[::1]:2"));
    EXPECT_EQ(parsed->config.drain_wait, absl::Milliseconds(1500));
    EXPECT_EQ(parsed->config.limits.max_request_bytes, 3 << 20);
    EXPECT_EQ(parsed->config.log_format, "json");
    EXPECT_THAT(parsed->warnings, IsEmpty());
    EXPECT_FALSE(parsed->output.has_value());
  }
}

TEST(FlagsTest, WholeNumbersAreDecimal) {
  const TemporaryFile file("threads = 010\nmax-queued-requests = \"0099\"\nmax-request-bytes = 010MiB\n");
  for (const auto& parsed :
       {ParseFlags({"--config", file.path()}, {}),
        ParseFlags({"--threads=010", "--max-queued-requests=+0099", "--max-request-bytes", " 010MiB"}, {}),
        ParseFlags({}, {{"ATTEND_THREADS", " 010"},
                        {"ATTEND_MAX_QUEUED_REQUESTS", "0099"},
                        {"ATTEND_MAX_REQUEST_BYTES", "0010485760"}})}) {
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->config.threads, 10);
    EXPECT_EQ(parsed->config.limits.max_queued_requests, 99);
    EXPECT_EQ(parsed->config.limits.max_request_bytes, 10 << 20);
  }
  EXPECT_EQ(ParseFlags({"--max-queued-requests=000"}, {})->config.limits.max_queued_requests, 0);
  for (const char* value : {"0x10", "0X10", "0b1", "0y"}) {
    const std::string flag = "--threads", expected = absl::StrCat(flag, " ", value, ": expected an integer");
    EXPECT_EQ(Message(ParseFlags({flag, value}, {}).status()), expected);
    EXPECT_EQ(Message(ParseFlags({}, {{"ATTEND_THREADS", value}}).status()), expected);
  }
  EXPECT_EQ(Message(ParseFlags({"--threads=-010"}, {}).status()), "--threads -10: expected 1 to 4096");
}

TEST(FlagsTest, SizesAreWhatStandsThereOrRefused) {
  const auto parse = [](const std::string& size) { return ParseFlags({"--max-request-memory-bytes=" + size}, {}); };
  const std::pair<const char*, std::int64_t> sizes[] = {{"1B", 1},
                                                        {"1 kb", 1 << 10},
                                                        {"2K", 2 << 10},
                                                        {"3mi", 3 << 20},
                                                        {"1GiB", 1 << 30},
                                                        {"7EiB", std::int64_t{7} << 60},
                                                        {"9223372036854775807", kMaxInt64}};
  for (const auto& [text, bytes] : sizes) {
    const auto parsed = parse(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->config.limits.max_request_memory_bytes, bytes) << text;
  }
  for (const char* none : {"-1B", "-18446744073709551612B", "1.5MiB", "0x10", "lots", "MiB", "1MiBB", "1 M B"}) {
    EXPECT_THAT(Message(parse(none).status()), HasSubstr(absl::StrCat(none, ": expected a size, as in 500000")));
  }
  for (const char* beyond : {"0", "8EiB", "15EiB", "9223372036854775808", "99999999999999999999999",
                             "99999999999999999999999B", "18014398509481984KiB"}) {
    EXPECT_THAT(Message(parse(beyond).status()), HasSubstr(absl::StrCat(beyond, ": expected 1 to 9.22337e+18")));
  }
}

TEST(FlagsTest, PrintedConfigurationReadsBackTheSame) {
  const std::vector<std::vector<std::string>> command_lines = {
      {},
      {"--listen=127.0.0.1:1", "--listen=127.0.0.1:2", "--grpc-channel-argument=a=1", "--grpc-channel-argument=b=x y",
       "--max-request-flops=123456789", "--max-connection-age=inf", "--drain-timeout=1h2m3s", "--tls-cert=/a b",
       "--tls-key=/c\"d", "--max-request-bytes=1GiB", "--instruction-set=AVX2", "--inline-flops=0"},
  };
  for (std::vector<std::string> arguments : command_lines) {
    arguments.push_back("--print-config");
    const auto printed = ParseFlags(arguments, {});
    ASSERT_TRUE(printed.ok()) << printed.status();
    ASSERT_TRUE(printed->output.has_value());
    const TemporaryFile file(*printed->output);
    const auto again = ParseFlags({"--config=" + file.path(), "--print-config"}, {});
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << *printed->output;
    EXPECT_EQ(*again->output, *printed->output);
    EXPECT_EQ(again->config.listen, printed->config.listen);
    EXPECT_EQ(again->config.transport.channel_arguments, printed->config.transport.channel_arguments);
    EXPECT_EQ(again->config.transport.max_connection_age, printed->config.transport.max_connection_age);
    EXPECT_EQ(again->config.limits.max_request_flops, printed->config.limits.max_request_flops);
    EXPECT_EQ(again->config.limits.max_request_bytes, printed->config.limits.max_request_bytes);
    EXPECT_EQ(again->config.tls.certificate_path, printed->config.tls.certificate_path);
    EXPECT_EQ(again->config.tls.key_path, printed->config.tls.key_path);
    EXPECT_EQ(again->config.drain_timeout, printed->config.drain_timeout);
  }
}

TEST(FlagsTest, PrintedConfigurationNamesEveryFlag) {
  const auto help = ParseFlags({"--help"}, {});
  const auto printed = ParseFlags({"--print-config"}, {});
  ASSERT_TRUE(help.ok() && printed.ok());
  const std::string text = *help->output;
  int flags = 0;
  for (std::size_t at = text.find("\n  --"); at != std::string::npos; at = text.find("\n  --", at + 1)) {
    const std::string name = text.substr(at + 5, text.find_first_of(" \n=", at + 5) - at - 5);
    if (name == "version" || name == "print-config" || name == "check-config" || name == "config") continue;
    EXPECT_THAT(*printed->output, HasSubstr(name + " = "));
    ++flags;
  }
  EXPECT_GT(flags, 25);
}

TEST(FlagsTest, WrongInputIsAnErrorThatNamesTheFlag) {
  const TemporaryFile unknown("max-queued-request = 3\n");
  const TemporaryFile wrong("threads = many\n");
  struct Case {
    std::vector<std::string> arguments;
    Environment environment;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{"--no-such-flag=1"}, {}, "no-such-flag"},
      {{"stray"}, {}, "stray"},
      {{"--config=" + unknown.path()}, {}, "max-queued-request"},
      {{"--listen=nowhere"}, {}, "--listen: 'nowhere' is not host:port"},
      {{"--listen=:50051"}, {}, "--listen"},
      {{"--listen=host:"}, {}, "--listen"},
      {{"--listen=host:65536"}, {}, "--listen"},
      {{"--listen=host:-1"}, {}, "--listen"},
      {{"--listen=host:http"}, {}, "--listen"},
      {{"--listen=::1:50051"}, {}, "--listen"},
      {{"--listen=[::1:50051"}, {}, "--listen"},
      {{"--listen=http://host:1"}, {}, "--listen"},
      {{"--listen=unix:"}, {}, "--listen"},
      {{"--listen=127.0.0.1:1", "--listen=nowhere"}, {}, "nowhere"},
      {{"--listen=127.0.0.1:1,[::1]:1,127.0.0.1:1"}, {}, "--listen: '127.0.0.1:1' is given twice"},
      {{"--listen=unix:/run/s", "--listen=unix:///run//s"}, {}, "--listen: 'unix:///run//s' is given twice"},
      {{"--config=" + wrong.path()}, {}, "threads"},
      {{"--config=/no/such/file"}, {}, "/no/such/file"},
      {{"--config=/proc/self/mem"}, {}, "/proc/self/mem: reading it failed"},  // Nothing is mapped at its beginning.
      {{}, {{"ATTEND_THREADS", "many"}}, "threads"},
      {{"--tls-cert=a", "--tls-key=c\"d'e", "--print-config"}, {}, "tls-key is c\"d'e, which no file can say"},
      {{"--max-request-bytes=-1"}, {}, "max-request-bytes"},
      {{"--max-request-bytes=2GiB"}, {}, "max-request-bytes"},
      {{"--max-request-bytes=99999999999999999999"}, {}, "max-request-bytes"},
      {{"--max-request-flops=nan"}, {}, "max-request-flops"},
      {{"--drain-wait=-1s"}, {}, "drain-wait"},
      {{"--drain-wait=soon"}, {}, "drain-wait"},
      {{"--drain-wait=5"}, {}, "drain-wait"},
      {{"--log-level=loud"}, {}, "log-level"},
      {{"--log-format=xml"}, {}, "log-format"},
      {{"--instruction-set=mmx"}, {}, "instruction-set"},
      {{"--transport-memory-bytes=268435455"}, {}, "--max-request-bytes"},
      {{"--tls-cert=/a"}, {}, "--tls-key"},
      {{"--tls-key=/a"}, {}, "--tls-cert"},
      {{"--tls-client-ca=/a"}, {}, "--tls-cert"},
      {{"--grpc-channel-argument=novalue"}, {}, "grpc-channel-argument"},
      {{"--grpc-channel-argument==1"}, {}, "grpc-channel-argument"},
  };
  for (const Case& c : cases) {
    const auto parsed = ParseFlags(c.arguments, c.environment);
    EXPECT_FALSE(parsed.ok()) << ::testing::PrintToString(c.arguments);
    EXPECT_THAT(Message(parsed.status()), HasSubstr(c.message)) << ::testing::PrintToString(c.arguments);
  }
}

TEST(FlagsTest, AnUnknownKeyIsNamedWithItsFileAndTheNearestThatThereIs) {
  struct Case {
    std::string text;
    std::string key;
    std::string nearest;
  };
  for (const Case& c :
       {Case{"max-queued-request = 3\n", "'max-queued-request'", "'max-queued-requests'"},
        Case{"threads = 2\nlog_level = \"info\"\n", "'log_level'", "'log-level'"},
        Case{"bogus = 1\n", "'bogus'", "nearest"}, Case{"check-config = true\n", "'check-config'", "nearest"},
        Case{"[section]\nthreads = 1\n", "'section.threads'", "'threads'"}}) {
    const TemporaryFile file(c.text);
    for (const bool by_variable : {false, true}) {
      const auto parsed =
          by_variable ? ParseFlags({}, {{"ATTEND_CONFIG", file.path()}}) : ParseFlags({"--config", file.path()}, {});
      EXPECT_THAT(Message(parsed.status()), HasSubstr(c.key)) << c.text;
      EXPECT_THAT(Message(parsed.status()), HasSubstr(c.nearest)) << c.text;
      EXPECT_THAT(Message(parsed.status()), HasSubstr(file.path())) << c.text;
    }
  }
}

struct FlagRange {
  const char* flag;
  std::vector<const char*> within;  // The ends themselves.
  std::vector<const char*> beyond;  // The next values that could be said.
};

TEST(FlagsTest, RangesEndWhereTheySay) {
  for (const FlagRange& range : std::vector<FlagRange>{
           {"threads", {"1", "4096"}, {"0", "4097"}},
           {"polling-threads", {"1", "256"}, {"0", "257"}},
           {"inline-flops", {"0", "1e12"}, {"-0.001", "1.001e12"}},
           {"drain-wait", {"0s", "inf"}, {"-1ns"}},
           {"drain-timeout", {"0s", "inf"}, {"-1ns"}},
           {"max-json-bytes", {"1", "2147483647"}, {"0", "2147483648"}},
           {"max-request-bytes", {"1"}, {"0", "2147483648"}},
           {"max-response-bytes", {"1", "2147483647"}, {"0", "2147483648"}},
           {"max-request-flops", {"1", "1e18"}, {"0.999", "1.001e18"}},
           {"max-request-memory-bytes", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
           {"max-queued-requests", {"0", "1048576"}, {"-1", "1048577"}},
           {"max-stream-requests-in-flight", {"1", "1048576"}, {"0", "1048577"}},
           {"max-memory-in-flight-bytes", {"1", "4611686018427387904"}, {"0", "4611686018427387905"}},
           {"max-connections", {"1", "16777216"}, {"0", "16777217"}},
           {"max-calls", {"1", "16777216"}, {"0", "16777217"}},
           {"first-message-timeout", {"100ms", "inf"}, {"99999999ns"}},
           {"stalled-answer-timeout", {"100ms", "inf"}, {"99999999ns"}},
           {"min-transfer-rate", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
           {"max-data-dir-bytes", {"1", "4611686018427387904"}, {"0", "4611686018427387905"}},
           {"max-layers", {"0", "1048576"}, {"-1", "1048577"}},
           {"max-layer-bytes", {"1", "1099511627776"}, {"0", "1099511627777"}},
           {"max-layers-bytes", {"1", "4611686018427387904"}, {"0", "4611686018427387905"}},
           {"max-uploads", {"1", "1024"}, {"0", "1025"}},
           {"max-concurrent-streams", {"1", "2147483647"}, {"0", "2147483648"}},
           {"keepalive-time", {"1s", "inf"}, {"999999999ns"}},
           {"keepalive-timeout", {"1s", "inf"}, {"999999999ns"}},
           {"min-ping-interval", {"0s", "inf"}, {"-1ns"}},
           {"max-connection-idle", {"1s", "inf"}, {"999999999ns"}},
           {"max-connection-age", {"1s", "inf"}, {"999999999ns"}},
           {"max-connection-age-grace", {"0s", "inf"}, {"-1ns"}},
           {"handshake-timeout", {"100ms", "inf"}, {"99999999ns"}},
           {"max-metadata-bytes", {"1024", "1048576"}, {"1023", "1048577"}},
           {"transport-memory-bytes", {"256MiB", "9223372036854775807"}, {"9223372036854775808"}},
           {"tls-refresh-interval", {"1s", "inf"}, {"999999999ns"}}}) {
    for (const char* value : range.within) {
      const std::string flag = absl::StrCat("--", range.flag, "=", value);
      EXPECT_EQ(Message(ParseFlags({flag}, {}).status()), "") << flag;
    }
    for (const char* value : range.beyond) {
      const std::string flag = absl::StrCat("--", range.flag, "=", value);
      EXPECT_THAT(Message(ParseFlags({flag}, {}).status()), HasSubstr(range.flag)) << flag;
    }
  }
}

TEST(FlagsTest, BoundsThemselvesAreAccepted) {
  EXPECT_TRUE(ParseFlags({"--max-request-bytes=2147483647", "--transport-memory-bytes=2147483647"}, {}).ok());
  for (const char* flag :
       {"--listen=0.0.0.0:0", "--listen=[::]:65535", "--listen=localhost:1", "--listen=unix:/run/attend.sock",
        "--listen=127.0.0.1:0,127.0.0.1:0", "--listen=127.0.0.1:1,[::1]:1", "--listen=unix:/run/a,unix:/run/b",
        "--grpc-channel-argument=a="}) {
    EXPECT_TRUE(ParseFlags({flag, "--insecure"}, {}).ok()) << flag;
  }
}

TEST(FlagsTest, PlaintextBeyondThisMachineHasToBeWanted) {
  for (const char* listen : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "12.7.0.1:1", "[::2]:1", "example.org:1",
                             "localhost.:1", "127.0.0.1:1,10.0.0.1:1"}) {
    const std::string flag = std::string("--listen=") + listen;
    const auto refused = ParseFlags({flag}, {});
    ASSERT_FALSE(refused.ok()) << listen;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--insecure"));
    EXPECT_TRUE(ParseFlags({flag, "--insecure"}, {}).ok()) << listen;
    EXPECT_TRUE(ParseFlags({flag, "--tls-cert=a", "--tls-key=b"}, {}).ok()) << listen;
  }
  for (const char* listen : {"127.0.0.1:1", "127.255.0.1:1", "[::1]:1", "localhost:1", "unix:/run/a"}) {
    EXPECT_TRUE(ParseFlags({std::string("--listen=") + listen}, {}).ok()) << listen;
  }
}

TEST(FlagsTest, VariablesOfOthersAreLeftAloneAndTyposAreReported) {
  const auto others = ParseFlags({}, {{"ATTEND_ENDPOINTS", "a:1"},
                                      {"ATTEND_SERVICE_HOST", "10.0.0.1"},
                                      {"ATTEND_SERVICE_PORT", "50051"},
                                      {"ATTEND_PORT", "tcp://10.0.0.1:50051"},
                                      {"ATTEND_PORT_50051_TCP_PROTO", "tcp"}});
  ASSERT_TRUE(others.ok()) << others.status();
  EXPECT_THAT(others->warnings, IsEmpty());
  const auto typo = ParseFlags({}, {{"ATTEND_MAX_QUEUED_REQUEST", "5"}});
  ASSERT_TRUE(typo.ok());
  EXPECT_THAT(typo->warnings, ElementsAre(HasSubstr("ATTEND_MAX_QUEUED_REQUESTS")));
  EXPECT_EQ(typo->config.limits.max_queued_requests, Limits().max_queued_requests);
}

TEST(FlagsTest, QuestionsAreAnsweredInsteadOfServing) {
  EXPECT_EQ(ParseFlags({"--version"}, {})->output, "attend-server " + std::string(kVersion) + "\n");
  EXPECT_THAT(*ParseFlags({"--help"}, {})->output, HasSubstr("--max-queued-requests"));
  EXPECT_TRUE(ParseFlags({"--check-config", "--threads=3"}, {})->check_only);
  EXPECT_FALSE(ParseFlags({"--threads=3"}, {})->check_only);
  EXPECT_FALSE(ParseFlags({"--check-config", "--threads=0"}, {}).ok());
  EXPECT_FALSE(ParseFlags({"--check-config"}, {{"ATTEND_THREADS", "0"}}).ok());
}

TEST(FlagsTest, AHashBeginsACommentOutsideOfQuotesOnly) {
  const TemporaryFile file("# first\nthreads = 3 # three\nlayer = \"a=b.safetensors#c\" # \"quoted\"\n  # last\n");
  const auto parsed = ParseFlags({"--config=" + file.path()}, {});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->config.threads, 3);
  EXPECT_THAT(parsed->config.layer_sources.layers, ElementsAre("a=b.safetensors#c"));
}

TEST(FlagsTest, LayersComeFromFlagsVariablesAndFiles) {
  const auto by_flag = ParseFlags(
      {"--layer=a=x.safetensors#p.0.", "--layer", "b=init:1:2", "--layer-config",
       R"(a={"num_heads": 2, "num_kv_heads": 1})", "--layer-config=b=b.json", "--layer-dir=/d", "--skip-broken-layers"},
      {});
  ASSERT_TRUE(by_flag.ok()) << by_flag.status();
  const LayerSources& sources = by_flag->config.layer_sources;
  EXPECT_THAT(sources.layers, ElementsAre("a=x.safetensors#p.0.", "b=init:1:2"));
  EXPECT_THAT(sources.configs, ElementsAre(R"(a={"num_heads": 2, "num_kv_heads": 1})", "b=b.json"));
  EXPECT_EQ(sources.directory, "/d");
  EXPECT_TRUE(sources.skip_broken);
  const auto by_variable = ParseFlags({}, {{"ATTEND_LAYER", "a=x.safetensors#p,b=init:1:2"},
                                           {"ATTEND_LAYER_CONFIG", R"(a={"num_heads": 2, "num_kv_heads": 1})"}});
  ASSERT_TRUE(by_variable.ok()) << by_variable.status();
  EXPECT_THAT(by_variable->config.layer_sources.layers, ElementsAre("a=x.safetensors#p", "b=init:1:2"));
  EXPECT_THAT(by_variable->config.layer_sources.configs, ElementsAre(R"(a={"num_heads": 2, "num_kv_heads": 1})"));
  const auto printed = ParseFlags({"--layer=a=x.safetensors#p.0.", "--layer=b=init:1:2", "--layer-config",
                                   R"(a={"num_heads": 2})", "--skip-broken-layers", "--print-config"},
                                  {});
  ASSERT_TRUE(printed.ok()) << printed.status();
  const TemporaryFile file(*printed->output);
  const auto again = ParseFlags({"--config=" + file.path()}, {});
  ASSERT_TRUE(again.ok()) << again.status() << *printed->output;
  EXPECT_THAT(again->config.layer_sources.layers, ElementsAre("a=x.safetensors#p.0.", "b=init:1:2"));
  EXPECT_THAT(again->config.layer_sources.configs, ElementsAre(R"(a={"num_heads": 2})"));
  EXPECT_TRUE(again->config.layer_sources.skip_broken);
}

}  // namespace
}  // namespace attend::server
