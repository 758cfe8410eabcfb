// Guards the small parts of the client library: tensors, endpoints, the server-timing receipt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/lib/bearer_token.h"
#include "client/lib/channel.h"
#include "client/lib/server_timing.h"
#include "client/lib/tensor.h"
#include "tests/support/lookup_failure.h"
#include "tests/support/without_descriptors.h"

namespace attend::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(CountElements, IsExactAtTheEdgeOf63Bits) {
  const std::int64_t max = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(*CountElements({}, 4), 1);
  EXPECT_EQ(*CountElements({2, 3, 4}, 4), 24);
  EXPECT_EQ(*CountElements({0, 5}, 4), 0);
  EXPECT_EQ(*CountElements({max}, 1), max);
  EXPECT_EQ(*CountElements({max / 4}, 4), max / 4);
  EXPECT_FALSE(CountElements({max / 4 + 1}, 4).ok());
  EXPECT_FALSE(CountElements({std::int64_t{1} << 32, std::int64_t{1} << 31}, 1).ok());
  EXPECT_FALSE(CountElements({-1}, 4).ok());
}

TEST(Tensor, BytesAndShapeMustAgree) {
  EXPECT_TRUE(Tensor::Create(ElementType::kFloat32, {2, 3}, std::string(24, 'x')).ok());
  const absl::Status status = Tensor::Create(ElementType::kFloat32, {2, 3}, std::string(23, 'x')).status();
  EXPECT_EQ(status.message(), "a float32 tensor of shape [2, 3] has 24 bytes, but 23 were given");
}

TEST(Tensor, FindsWhatWouldBecomeInfinite) {
  const auto first = [](double value, ElementType from, ElementType to) {
    const std::vector<double> values = {0, -HUGE_VAL, std::nan(""), value};
    std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
    Tensor tensor = (*Tensor::Create(ElementType::kFloat64, {4}, std::move(bytes))).ToFloat(from);
    const std::optional<std::int64_t> beyond = tensor.FirstBeyond(to);
    const bool becomes_infinite =
        std::isfinite(tensor.ToDoubles()[3]) && std::isinf(std::move(tensor).ToFloat(to).ToDoubles()[3]);
    EXPECT_EQ(becomes_infinite, beyond.has_value()) << value;
    return beyond.value_or(-1);
  };
  using enum ElementType;
  EXPECT_EQ(first(std::nextafter(0x1.ffffffp127, 0), kFloat64, kFloat32), -1);
  EXPECT_EQ(first(-0x1.ffffffp127, kFloat64, kFloat32), 3);
  EXPECT_EQ(first(std::nextafter(0x1.ffp127, 0), kFloat64, kBFloat16), -1);
  EXPECT_EQ(first(0x1.ffp127, kFloat64, kBFloat16), 3);
  EXPECT_EQ(first(0x1.fffffep127, kFloat32, kBFloat16), 3);
  EXPECT_EQ(first(std::nextafter(65520, 0), kFloat64, kFloat16), -1);
  EXPECT_EQ(first(65520, kFloat32, kFloat16), 3);
  EXPECT_EQ(first(-1.7e308, kFloat64, kFloat64), -1);
}

TEST(Tensor, TravelsThroughMessagesWithoutCopies) {
  const std::vector<float> values(1000, 1.5f);
  Tensor tensor = Tensor::FromFloats({10, 100}, values);
  const char* const memory = tensor.bytes().data();
  v1::Tensor message;
  ASSERT_TRUE(std::move(tensor).MoveTo(&message).ok());
  EXPECT_EQ(message.data().data(), memory);
  EXPECT_EQ(message.data_type(), v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(message.shape(), ElementsAre(10, 100));
  const absl::StatusOr<Tensor> back = Tensor::FromProto(std::move(message));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->bytes().data(), memory);
}

TEST(Tensor, ReadsTheValuesFormOfAMessage) {
  v1::Tensor message;
  for (const float value : {0.f, 2.f, -1.f}) message.add_values(value);
  message.add_shape(3);
  EXPECT_THAT(Tensor::FromProto(v1::Tensor(message))->floats(), ElementsAre(0, 2, -1));
  message.set_data_type(v1::DATA_TYPE_BOOL);
  EXPECT_EQ(Tensor::FromProto(v1::Tensor(message))->bytes(), std::string("\0\1\1", 3));
  message.set_data_type(v1::DATA_TYPE_FLOAT16);
  EXPECT_THAT(Tensor::FromProto(v1::Tensor(message))->ToDoubles(), ElementsAre(0, 2, -1));
  message.add_shape(2);
  EXPECT_FALSE(Tensor::FromProto(v1::Tensor(message)).ok()) << "3 values were taken for [3, 2]";
  message.set_data_type(static_cast<v1::DataType>(99));
  EXPECT_THAT(std::string(Tensor::FromProto(v1::Tensor(message)).status().message()), HasSubstr("99"));
}

TEST(Tensor, ReadsIndices) {
  v1::Tensor message;
  message.set_data_type(v1::DATA_TYPE_INT32);
  message.add_shape(2);
  message.set_data(std::string("\xff\xff\xff\xff\x05\x01\0\0", 8));
  const absl::StatusOr<Tensor> indices = Tensor::FromProto(std::move(message));
  ASSERT_TRUE(indices.ok()) << indices.status();
  EXPECT_EQ(indices->Describe(), "int32 [2]");
  EXPECT_THAT(*indices->ToInt64(), ElementsAre(-1, 261));
}

TEST(Tensor, ValuesThatAreNoIndicesAreRefused) {
  const auto read = [](float value) {
    v1::Tensor message;
    message.set_data_type(v1::DATA_TYPE_INT32);
    message.add_shape(2);
    message.add_values(7);
    message.add_values(value);
    return Tensor::FromProto(std::move(message));
  };
  for (const float value : {-0x1p31F, -1.0F, 0.0F, 0x1.fffffep30F}) {
    const absl::StatusOr<Tensor> indices = read(value);
    ASSERT_TRUE(indices.ok()) << indices.status();
    EXPECT_THAT(*indices->ToInt64(), ElementsAre(7, static_cast<std::int64_t>(value)));
  }
  for (const float value : {std::nanf(""), HUGE_VALF, -HUGE_VALF, 3e9F, 0x1p31F, -0x1.000002p31F, 0.5F}) {
    EXPECT_THAT(std::string(read(value).status().message()), HasSubstr("which no int32 is")) << value;
  }
}

TEST(Tensor, IntegersAreNotSentAsSomethingElse) {
  for (const ElementType type : {ElementType::kInt64, ElementType::kInt32}) {
    v1::Tensor message;
    absl::StatusOr<Tensor> integers = Tensor::Create(type, {0}, "");
    const absl::Status status = (*std::move(integers)).MoveTo(&message);
    EXPECT_THAT(std::string(status.message()), HasSubstr("use one of float32, float64, float16, bfloat16 and bool"));
  }
}

// A float64 tensor as `type`, in float64 again.
std::vector<double> Through(ElementType type, const std::vector<double>& values) {
  std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
  absl::StatusOr<Tensor> tensor =
      Tensor::Create(ElementType::kFloat64, {static_cast<std::int64_t>(values.size())}, std::move(bytes));
  return (*std::move(tensor)).ToFloat(type).ToDoubles();
}

TEST(Tensor, RoundsToEachTypeOnceToNearestAndTiesToEven) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // Just above and below ties: rounded to float32 first they would be ties, and become 1 and 1 + 2^-9.
  const double tie16 = 1 + std::ldexp(1, -11), tie_brain = 1 + std::ldexp(1, -8), little = std::ldexp(1, -40);
  EXPECT_THAT(Through(ElementType::kFloat16, {tie16 + little, tie16 + std::ldexp(1, -10) - little, tie16, -tie16}),
              ElementsAre(1 + std::ldexp(1, -10), 1 + std::ldexp(1, -10), 1, -1));
  EXPECT_THAT(Through(ElementType::kBFloat16, {tie_brain + little, -tie_brain - little, tie_brain}),
              ElementsAre(1 + std::ldexp(1, -7), -1 - std::ldexp(1, -7), 1));
  EXPECT_THAT(Through(ElementType::kFloat16, {65519, 65520, -1e300, std::ldexp(1, -25), std::ldexp(1.1, -25), -0.0}),
              ElementsAre(65504, kInfinity, -kInfinity, 0, std::ldexp(1, -24), 0));
  EXPECT_THAT(Through(ElementType::kBFloat16, {1e300, -kInfinity}), ElementsAre(kInfinity, -kInfinity));
  EXPECT_THAT(Through(ElementType::kFloat32, {1e300, 1 + std::ldexp(1, -24)}), ElementsAre(kInfinity, 1));
  for (const ElementType type : {ElementType::kFloat16, ElementType::kBFloat16, ElementType::kFloat32}) {
    EXPECT_TRUE(std::isnan(Through(type, {std::nan("")})[0]));
  }
}

TEST(Tensor, ConvertsBetweenElementTypes) {
  // 1.0, -2.0, infinity and the smallest subnormal, as IEEE 754 lays them out.
  const absl::StatusOr<Tensor> half =
      Tensor::Create(ElementType::kFloat16, {4}, std::string("\x00\x3c\x00\xc0\x00\x7c\x01\x00", 8));
  EXPECT_THAT(half->ToDoubles(), ElementsAre(1, -2, std::numeric_limits<double>::infinity(), std::ldexp(1, -24)));
  EXPECT_THAT(Tensor(*half).ToFloat32().floats(),
              ElementsAre(1, -2, std::numeric_limits<float>::infinity(), std::ldexp(1.f, -24)));
  const absl::StatusOr<Tensor> brain = Tensor::Create(ElementType::kBFloat16, {2}, std::string("\x80\x3f\x00\xc0", 4));
  EXPECT_THAT(Tensor(*brain).ToFloat32().floats(), ElementsAre(1, -2));
  const absl::StatusOr<Tensor> flags = Tensor::Create(ElementType::kBool, {3}, std::string("\0\1\xff", 3));
  EXPECT_THAT(Tensor(*flags).ToFloat32().floats(), ElementsAre(0, 1, 1));
  EXPECT_FALSE(flags->ToInt64().ok());
  const absl::StatusOr<Tensor> small = Tensor::Create(ElementType::kInt8, {2}, std::string("\xff\x05", 2));
  EXPECT_THAT(*small->ToInt64(), ElementsAre(-1, 5));
  EXPECT_FALSE(half->ToInt64().ok());
  EXPECT_FALSE(Tensor::Create(ElementType::kUint64, {1}, std::string(8, '\xff'))->ToInt64().ok());
}

TEST(ServerTiming, ReadsMetricsAndForgivesTheRest) {
  const struct {
    const char* header;
    std::vector<std::pair<std::string, double>> stages;
  } cases[] = {
      {"", {}},
      {"receive;dur=0.12, queue;dur=0, compute;dur=3.4", {{"receive", 0.12}, {"queue", 0}, {"compute", 3.4}}},
      {" compute ; desc=\"a, b; dur=9\" ; dur = \"2.5\" ", {{"compute", 2.5}}},
      {"a;DUR=1", {{"a", 1}}},
      {"a;dur=1;dur=2", {{"a", 1}}},
      {"a, b;dur=, c;dur=x, d;dur=-1, e;dur=nan, f;dur=inf, ;dur=1, g;dur=1e3", {{"g", 1000}}},
      {"a;desc=\"\\\"\";dur=4,b;dur=5", {{"a", 4}, {"b", 5}}},
      {"a;desc=\"not closed, b;dur=5", {}},
  };
  for (const auto& test : cases) {
    std::vector<std::pair<std::string, double>> stages;
    for (const StageTime& stage : ParseServerTiming(test.header)) stages.emplace_back(stage.name, stage.milliseconds);
    EXPECT_EQ(stages, test.stages) << test.header;
  }
}

TEST(Endpoints, BecomeOneTarget) {
  const struct {
    std::vector<std::string> endpoints;
    const char* uri;
    const char* host;
  } cases[] = {
      {{"127.0.0.1:50051"}, "ipv4:127.0.0.1:50051", "127.0.0.1"},
      {{"10.0.0.1:1", "10.0.0.2:65535"}, "ipv4:10.0.0.1:1,10.0.0.2:65535", "10.0.0.1"},
      {{"[::1]:50051"}, "ipv6:[::1]:50051", "::1"},
      {{"10.0.0.1:5", "[::1]:6"}, "ipv6:[::ffff:10.0.0.1]:5,[::1]:6", "10.0.0.1"},
      {{"attend.example:50051"}, "dns:///attend.example:50051", "attend.example"},
      {{"attend.example"}, "dns:///attend.example:50051", "attend.example"},
      {{"10.0.0.1", "[::1]"}, "ipv6:[::ffff:10.0.0.1]:50051,[::1]:50051", "10.0.0.1"},
      {{"dns:///attend.example:50051"}, "dns:///attend.example:50051", ""},
      {{"unix:/run/attend.sock"}, "unix:/run/attend.sock", ""},
  };
  for (const auto& test : cases) {
    const absl::StatusOr<Target> target = ResolveTarget(test.endpoints);
    ASSERT_TRUE(target.ok()) << test.endpoints[0] << ": " << target.status();
    EXPECT_EQ(target->uri, test.uri);
    EXPECT_EQ(target->host, test.host);
  }
}

TEST(Endpoints, MalformedOnesAreNamed) {
  for (const char* endpoint : {"", ":50051", "host:", "host:0", "host:65536", "host:x", "host:-1", "::1:50051",
                               "[::1:50051", "[]:1", "http://host:1", "a,b:1", "host :1", "ho[st:1"}) {
    const absl::StatusOr<Target> target = ResolveTarget({endpoint});
    ASSERT_EQ(target.status().code(), absl::StatusCode::kInvalidArgument) << endpoint;
    EXPECT_THAT(std::string(target.status().message()), HasSubstr(std::string("'") + endpoint + "'"));
  }
  EXPECT_FALSE(ResolveTarget({}).ok());
  EXPECT_FALSE(ResolveTarget({"127.0.0.1:1", "unix:/a"}).ok()) << "a URI in a list of several";
}

TEST(Endpoints, NamesInAListAreResolved) {
  const absl::StatusOr<Target> target = ResolveTarget({"10.0.0.1:1", "localhost:2"});
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_THAT(target->uri, ::testing::AnyOf(HasSubstr("127.0.0.1:2"), HasSubstr("[::1]:2")));
  // Each address once, and not once for each kind of socket. `10.2` is 10.0.0.2, which the system reads alone.
  const absl::StatusOr<Target> short_form = ResolveTarget({"10.0.0.1:1", "10.2:2"});
  ASSERT_TRUE(short_form.ok()) << short_form.status();
  EXPECT_EQ(short_form->uri, "ipv4:10.0.0.1:1,10.0.0.2:2");
  // An empty label: no resolver asks a DNS server for it.
  EXPECT_EQ(ResolveTarget({"10.0.0.1:1", "no..name:2"}).status().code(), absl::StatusCode::kUnavailable);
}

TEST(Endpoints, ANameThatTheSystemCannotLookUpHasTheSystemsReason) {
  absl::Status status;
  std::string reason;
  {
    const attend::testing::WithoutDescriptors none;
    status = ResolveTarget({"10.0.0.1:1", "no.such.name.invalid:2"}).status();
    reason = attend::testing::LookupFailure("no.such.name.invalid");
  }
  EXPECT_EQ(status.message(), "cannot resolve 'no.such.name.invalid': " + reason);
}

TEST(Endpoints, AreLocalWhereNothingLeavesThisMachine) {
  const struct {
    std::vector<std::string> endpoints;
    bool is_local;
  } cases[] = {
      {{"127.0.0.1"}, true},
      {{"127.8.9.10:1"}, true},
      {{"[::1]"}, true},
      {{"localhost"}, true},
      {{"dns:///localhost:1"}, true},
      {{"ipv4:127.0.0.1:1,127.0.0.2:2"}, true},
      {{"ipv6:[::1]:1"}, true},
      {{"unix:/run/attend.sock"}, true},
      {{"127.0.0.1:1", "[::1]:2"}, true},
      {{"127.0.0.1:1", "10.0.0.1:2"}, false},
      {{"10.0.0.1"}, false},
      {{"0.0.0.0"}, false},
      {{"[::]"}, false},
      {{"[fe80::1]"}, false},
      {{"10.0.0.1:1", "[::1]:2"}, false},
      {{"attend.example"}, false},
      {{"localhost.example"}, false},
      {{"dns:///127.0.0.1.example:1"}, false},
      {{"dns://127.0.0.1/attend.example:1"}, false},
      {{"dns:attend.example"}, false},
      {{"ipv4:127.0.0.1:1,10.0.0.1:1"}, false},
  };
  for (const auto& test : cases) {
    const absl::StatusOr<Target> target = ResolveTarget(test.endpoints);
    ASSERT_TRUE(target.ok()) << target.status();
    EXPECT_EQ(IsLocal(*target), test.is_local) << target->uri;
  }
}

TEST(Token, IsOneWordOfPrintableAscii) {
  for (const char* token : {"", "a", "AZaz09-._~+/=", "!#$%&'*^`|"}) EXPECT_TRUE(CheckToken(token).ok()) << token;
  for (const char* token : {" ", "a b", "a\n", "a\tb", "\x7f", "\xc3\xbc"}) {
    EXPECT_EQ(CheckToken(token).code(), absl::StatusCode::kInvalidArgument) << token;
  }
}

// Whole numbers and texts that gRPC is told, by their names.
struct Told {
  std::map<std::string, int> integers;
  std::map<std::string, std::string> texts;
};

Told Tell(const ClientOptions& options, const Target& target, bool watch_health = false) {
  const grpc::ChannelArguments arguments = internal::Arguments(options, target, watch_health);
  const grpc_channel_args all = arguments.c_channel_args();
  Told told;
  for (std::size_t i = 0; i < all.num_args; ++i) {
    if (all.args[i].type == GRPC_ARG_INTEGER) told.integers[all.args[i].key] = all.args[i].value.integer;
    if (all.args[i].type == GRPC_ARG_STRING) told.texts[all.args[i].key] = all.args[i].value.string;
  }
  return told;
}

TEST(Arguments, PingAServerThatIsSilent) {
  const Told told = Tell({}, {}, /*watch_health=*/true);
  EXPECT_EQ(told.integers.at("grpc.keepalive_time_ms"), 40000);
  EXPECT_EQ(told.integers.at("grpc.keepalive_timeout_ms"), 20000);
}

TEST(Arguments, SayWhatAChannelDoes) {
  ClientOptions options;
  options.max_message_bytes = 12345;
  const Told told = Tell(options, {"ipv4:10.0.0.1:1", "10.0.0.1"});
  for (const char* const key :
       {"grpc.max_send_message_length", "grpc.max_receive_message_length", "grpc.per_rpc_retry_buffer_size"}) {
    EXPECT_EQ(told.integers.at(key), 12345) << key;
  }
  EXPECT_EQ(told.integers.at("grpc.service_config_disable_resolution"), 1);
  EXPECT_EQ(told.integers.at("grpc.enable_http_proxy"), 0);
  EXPECT_EQ(told.integers.at("grpc.initial_reconnect_backoff_ms"), 100);
  EXPECT_EQ(told.integers.at("grpc.max_reconnect_backoff_ms"), 5000);
  EXPECT_THAT(told.texts.at("grpc.service_config"),
              ::testing::AllOf(HasSubstr("round_robin"), ::testing::Not(HasSubstr("healthCheckConfig"))));
  EXPECT_THAT(Tell({}, {}, /*watch_health=*/true).texts.at("grpc.service_config"),
              HasSubstr(R"("healthCheckConfig": {"serviceName": ""})"));
}

TEST(Arguments, NameTheServerThatACertificateIsFor) {
  constexpr char kName[] = "grpc.ssl_target_name_override";
  const Target target{"ipv4:10.0.0.1:1", "10.0.0.1"};
  ClientOptions options;
  EXPECT_EQ(Tell(options, target).texts.count(kName), 0U) << "without TLS";
  options.tls.emplace();
  EXPECT_EQ(Tell(options, target).texts.at(kName), "10.0.0.1");
  EXPECT_EQ(Tell(options, {"unix:/a", ""}).texts.count(kName), 0U);
  options.tls->server_name = "attend.example";
  EXPECT_EQ(Tell(options, target).texts.at(kName), "attend.example");
}

}  // namespace
}  // namespace attend::client
