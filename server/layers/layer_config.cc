#include "server/layers/layer_config.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/kernels/instruction_set.h"
#include "core/kernels/kernel_table.h"
#include "core/layer/attend_problem.h"
#include "core/tensor/aligned_buffer.h"
#include "server/wire/enums.h"
#include "server/wire/option_fields.h"
#include "server/wire/rounded.h"

namespace attend::server {
namespace {

using google::protobuf::FieldDescriptor;

constexpr char kRotary[] = "config.rotary_embedding.";

absl::Status Invalid(const std::string& field, const std::string& why) {
  return InvalidField(field, absl::StrCat(field, " ", why));
}

// The numbers of a vector of `num_heads` elements.
absl::StatusOr<std::vector<double>> ReadPerHead(const v1::Tensor& tensor, std::int64_t num_heads, bool is_double,
                                                const std::string& field) {
  if (tensor.shape_size() != 1 || tensor.shape(0) != num_heads) {
    return Invalid(field + ".shape", absl::StrCat("must be [", num_heads, "], a number for each query head"));
  }
  const std::optional<DataType> type = FromWire(tensor.data_type(), DataType::kFloat32);
  if (!type || !IsFloatingPoint(*type) || (*type == DataType::kFloat64 && !is_double)) {
    return Invalid(field + ".data_type", "must be FLOAT32, FLOAT16 or BFLOAT16, or FLOAT64 for FLOAT64 weights");
  }
  const ConvertKernels& convert = ConvertKernelsFor(BestInstructionSet());
  if (tensor.data().empty() && tensor.values_size() == num_heads) {
    std::vector<double> numbers;
    numbers.reserve(static_cast<std::size_t>(num_heads));
    for (const float value : tensor.values()) numbers.push_back(RoundedTo(*type, value, convert));
    return numbers;
  }
  const std::int64_t bytes = num_heads * ElementSize(*type);
  if (tensor.values_size() > 0 || static_cast<std::int64_t>(tensor.data().size()) != bytes) {
    return Invalid(field, absl::StrCat("needs ", num_heads, " `values`, or ", bytes, " bytes of `data`"));
  }
  const AlignedBuffer<char> aligned(bytes);
  tensor.data().copy(aligned.data(), tensor.data().size());
  if (*type == DataType::kFloat64) {
    const auto* const doubles = reinterpret_cast<const double*>(aligned.data());
    return std::vector<double>(doubles, doubles + num_heads);
  }
  std::vector<float> floats(static_cast<std::size_t>(num_heads));
  convert.widen(*type, aligned.data(), num_heads, floats.data());
  return std::vector<double>(floats.begin(), floats.end());
}

// The field that took over the name of the deprecated `float_x`; null for every other field.
const FieldDescriptor* ReplacementOf(const FieldDescriptor& field) {
  constexpr absl::string_view kPrefix = "float_";
  if (!field.options().deprecated() || !absl::StartsWith(field.name(), kPrefix)) return nullptr;
  return field.containing_type()->FindFieldByName(field.name().substr(kPrefix.size()));
}

absl::Status ReplaceFloatFieldsOf(google::protobuf::Message& message, const std::string& owner) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* const old = message.GetDescriptor()->field(i);
    const FieldDescriptor* const now = ReplacementOf(*old);
    if (now == nullptr || !reflection.HasField(message, old)) continue;
    const float value = reflection.GetFloat(message, old);
    if (!reflection.HasField(message, now)) {
      reflection.SetDouble(&message, now, value);
    } else if (static_cast<float>(reflection.GetDouble(message, now)) != value) {
      return FloatDiffers(owner + now->name(), reflection.GetDouble(message, now), owner + old->name(), value);
    }
    reflection.ClearField(&message, old);
  }
  return absl::OkStatus();
}

void AddFloatFieldsTo(google::protobuf::Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* const old = message.GetDescriptor()->field(i);
    const FieldDescriptor* const now = ReplacementOf(*old);
    if (now == nullptr || !reflection.HasField(message, now)) continue;
    reflection.SetFloat(&message, old, static_cast<float>(reflection.GetDouble(message, now)));
  }
}

// What differs by the length of a text, and the factor.
absl::Status CheckByLength(const v1::RotaryEmbedding& rotary) {
  const bool is_dynamic = rotary.has_dynamic_factor(), is_long = rotary.long_frequencies_size() > 0;
  if (is_dynamic && (!(rotary.dynamic_factor() >= 1) || !std::isfinite(rotary.dynamic_factor()))) {
    return Invalid(absl::StrCat(kRotary, "dynamic_factor"), "must be a finite number of at least 1");
  }
  if ((is_dynamic || is_long) && rotary.original_context_length() < 1) {
    return Invalid(absl::StrCat(kRotary, "original_context_length"),
                   "must be at least 1 with dynamic_factor or long_frequencies");
  }
  if (rotary.has_attention_factor() && !(rotary.attention_factor() > 0 && std::isfinite(rotary.attention_factor()))) {
    return Invalid(absl::StrCat(kRotary, "attention_factor"), "must be a positive finite number");
  }
  return absl::OkStatus();
}

absl::Status CheckFrequencies(const google::protobuf::RepeatedField<double>& frequencies, std::int64_t dim,
                              const std::string& field) {
  if (frequencies.empty()) return absl::OkStatus();
  if (frequencies.size() != dim / 2) {
    return Invalid(field, absl::StrCat("has ", frequencies.size(), " numbers; it must have ", dim / 2,
                                       ", half of config.rotary_embedding.dim"));
  }
  for (int i = 0; i < frequencies.size(); ++i) {
    if (std::abs(frequencies[i]) <= kMaxRotaryFrequency) continue;  // Not so for NaN.
    return Invalid(absl::StrCat(field, "[", i, "]"), "must be finite and between -2^64 and 2^64");
  }
  return absl::OkStatus();
}

// Frequencies that are given go without what they would be made of.
absl::Status CheckGivenFrequencies(const v1::RotaryEmbedding& rotary, std::int64_t dim) {
  const std::string field = absl::StrCat(kRotary, "frequencies"),
                    long_field = absl::StrCat(kRotary, "long_frequencies");
  absl::Status status = CheckFrequencies(rotary.frequencies(), dim, field);
  status.Update(CheckFrequencies(rotary.long_frequencies(), dim, long_field));
  if (!status.ok()) return status;
  if (rotary.frequencies().empty() && !rotary.long_frequencies().empty()) {
    return Invalid(long_field, "goes with frequencies, for shorter texts");
  }
  const bool has_others =
      rotary.has_base() || rotary.has_linear_factor() || rotary.has_llama3() || rotary.has_dynamic_factor();
  if (rotary.frequencies().empty() || !has_others) return absl::OkStatus();
  return Invalid(field, "goes without base, linear_factor, llama3 and dynamic_factor");
}

absl::Status CheckScaling(const v1::RotaryEmbedding& rotary) {
  if (rotary.has_linear_factor() && rotary.has_llama3()) {
    return Invalid(absl::StrCat(kRotary, "linear_factor"), "goes without llama3; leave one of them out");
  }
  if (rotary.has_dynamic_factor() && (rotary.has_linear_factor() || rotary.has_llama3())) {
    return Invalid(absl::StrCat(kRotary, "dynamic_factor"), "goes without linear_factor and llama3");
  }
  if (!(rotary.linear_factor() > 0) && rotary.has_linear_factor()) {
    return Invalid(absl::StrCat(kRotary, "linear_factor"), "must be a positive finite number");
  }
  if (!std::isfinite(rotary.linear_factor())) {
    return Invalid(absl::StrCat(kRotary, "linear_factor"), "must be a positive finite number");
  }
  if (rotary.has_linear_factor() && 1 / rotary.linear_factor() > kMaxRotaryFrequency) {
    return Invalid(absl::StrCat(kRotary, "linear_factor"),
                   "must be at least 2^-64, so that no pair turns by more than 2^64");
  }
  if (absl::Status status = CheckByLength(rotary); !status.ok()) return status;
  if (!rotary.has_llama3()) return absl::OkStatus();
  const v1::Llama3Scaling& llama3 = rotary.llama3();
  const std::string field = absl::StrCat(kRotary, "llama3.");
  if (!(llama3.factor() >= 1) || !std::isfinite(llama3.factor())) {
    return Invalid(field + "factor", "must be a finite number of at least 1");
  }
  if (!(llama3.low_freq_factor() > 0)) return Invalid(field + "low_freq_factor", "must be positive");
  if (!(llama3.high_freq_factor() > llama3.low_freq_factor()) || !std::isfinite(llama3.high_freq_factor())) {
    return Invalid(field + "high_freq_factor", "must be finite and above low_freq_factor");
  }
  if (llama3.original_context_length() < 1) return Invalid(field + "original_context_length", "must be at least 1");
  return absl::OkStatus();
}

// What transformers' `_compute_llama3_parameters` does to one frequency.
double ScaleAsLlama3(double frequency, const v1::Llama3Scaling& llama3) {
  const auto context = static_cast<double>(llama3.original_context_length());
  const double turns = context * frequency / (2 * M_PI);  // Of the pair within the context: context / wavelength.
  if (turns < llama3.low_freq_factor()) return frequency / llama3.factor();
  if (turns > llama3.high_freq_factor()) return frequency;
  const double share = (turns - llama3.low_freq_factor()) / (llama3.high_freq_factor() - llama3.low_freq_factor());
  return (1 - share) * frequency / llama3.factor() + share * frequency;
}

// What transformers' `_compute_dynamic_ntk_parameters` does to the base. A dim of 2 has one pair, of frequency 1.
double LongBase(const v1::RotaryEmbedding& rotary, std::int64_t length) {
  if (!rotary.has_dynamic_factor() || rotary.dim() < 4) return rotary.base();
  const auto original = static_cast<double>(rotary.original_context_length());
  const double stretch =
      rotary.dynamic_factor() * static_cast<double>(length) / original - (rotary.dynamic_factor() - 1);
  const auto dim = static_cast<double>(rotary.dim());
  return rotary.base() * std::pow(stretch, dim / (dim - 2));
}

}  // namespace

absl::StatusOr<v1::LayerConfig> ParseLayerConfig(std::string_view json) {
  v1::LayerConfig config;
  const auto status = google::protobuf::util::JsonStringToMessage({json.data(), json.size()}, &config);
  if (status.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrCat("it is not a LayerConfig in JSON: ", std::string(status.message().data(), status.message().size())));
}

absl::Status ReplaceFloatFields(v1::LayerConfig& config) {
  if (config.has_options()) {
    if (absl::Status s = ReplaceFloatFieldsOf(*config.mutable_options(), "config.options."); !s.ok()) return s;
  }
  return ReplaceFloatFieldsOf(config, "config.");
}

void AddFloatFields(v1::LayerConfig& config) {
  if (config.has_options()) AddFloatFieldsTo(*config.mutable_options());
  AddFloatFieldsTo(config);
}

absl::Status CheckAreLayerOptions(const v1::AttentionOptions& options) {
  std::vector<const FieldDescriptor*> set;
  options.GetReflection()->ListFields(options, &set);
  for (const auto* const field : set) {
    if (IsLayerOption(static_cast<std::uint32_t>(field->number()))) continue;
    return Invalid(absl::StrCat("config.options.", field->name()), "is a request's, not a layer's; leave it out");
  }
  return absl::OkStatus();
}

absl::Status CheckIgnoredTensors(const v1::LayerConfig& config) {
  const absl::Status status = formats::CheckIgnoredTensors(config);
  return status.ok() ? status : InvalidField(formats::FieldOf(status), std::string(status.message()));
}

bool IsSetIn(const v1::LayerConfig& config, absl::string_view field) {
  const google::protobuf::Message* message = &config;
  const std::vector<absl::string_view> path = absl::StrSplit(absl::StripPrefix(field, "config."), '.');
  for (std::size_t i = 0; i < path.size(); ++i) {
    const std::string name(path[i].substr(0, path[i].find('[')));
    const FieldDescriptor* const found = message->GetDescriptor()->FindFieldByName(name);
    if (found == nullptr) return false;
    const google::protobuf::Reflection& reflection = *message->GetReflection();
    if (found->is_repeated()) return reflection.FieldSize(*message, found) > 0;
    if (!reflection.HasField(*message, found)) return false;
    if (i + 1 == path.size()) return true;
    if (found->message_type() == nullptr) return false;
    message = &reflection.GetMessage(*message, found);
  }
  return false;
}

absl::Status CheckRotaryHasEffect(const v1::LayerConfig& config) {
  const v1::RotaryEmbedding& rotary = config.rotary_embedding();
  const bool has_none = rotary.form() == v1::ROTARY_FORM_NONE;  // Ignores all other fields, as the protocol says.
  if (has_none || rotary.original_context_length() == 0 || DependsOnLength(rotary)) return absl::OkStatus();
  return Invalid(absl::StrCat(kRotary, "original_context_length"),
                 "is set without dynamic_factor and long_frequencies, and changes nothing; leave it out");
}

absl::StatusOr<LayerOptions> ReadLayerOptions(const v1::AttentionOptions& options, std::int64_t num_heads,
                                              bool is_double) {
  if (absl::Status status = CheckAreLayerOptions(options); !status.ok()) return status;
  LayerOptions read;
  SetScalarOptions(options, read.options);
  if (absl::Status status = SetEnumOptions(options, "config.", read.options); !status.ok()) return status;
  for (std::size_t i = 0; i < std::size(kPerHeadOptions); ++i) {
    const v1::Tensor* const tensor = PerHeadTensor(options, i);
    if (tensor == nullptr) continue;
    absl::StatusOr<std::vector<double>> numbers =
        ReadPerHead(*tensor, num_heads, is_double, absl::StrCat("config.", kPerHeadOptions[i].field));
    if (!numbers.ok()) return numbers.status();
    read.per_head[i] = *std::move(numbers);
    read.options.*kPerHeadOptions[i].member = read.per_head[i];
  }
  return read;
}

absl::StatusOr<v1::RotaryEmbedding> CompleteRotary(const v1::RotaryEmbedding& rotary, std::int64_t head_dim) {
  v1::RotaryEmbedding complete = rotary;
  if (rotary.form() == v1::ROTARY_FORM_UNSPECIFIED) complete.set_form(v1::ROTARY_FORM_HALF);
  if (!v1::RotaryForm_IsValid(rotary.form())) {
    return Invalid(absl::StrCat(kRotary, "form"), "must be ROTARY_FORM_HALF (1) or ROTARY_FORM_INTERLEAVED (2)");
  }
  if (!rotary.has_base() && rotary.frequencies().empty()) complete.set_base(10000);
  if (rotary.frequencies().empty() && !(complete.base() >= 1 && std::isfinite(complete.base()))) {
    return Invalid(absl::StrCat(kRotary, "base"), "must be a finite number of at least 1");
  }
  if (rotary.dim() == 0) complete.set_dim(static_cast<std::int32_t>(head_dim));
  if (complete.dim() < 2 || complete.dim() % 2 != 0 || complete.dim() > head_dim) {
    return Invalid(absl::StrCat(kRotary, "dim"), absl::StrCat("is ", complete.dim(),
                                                              "; it must be even and between 2 "
                                                              "and the size of a query head, which is ",
                                                              head_dim));
  }
  if (absl::Status status = CheckScaling(rotary); !status.ok()) return status;
  if (absl::Status status = CheckGivenFrequencies(rotary, complete.dim()); !status.ok()) return status;
  if (!std::isfinite(LongBase(complete, 2 * kMaxPositionOffset))) {
    return Invalid(absl::StrCat(kRotary, "dynamic_factor"),
                   "is too large with this base and dim: the base of long texts would leave float64's range");
  }
  return complete;
}

std::vector<double> RotaryFrequencies(const v1::RotaryEmbedding& rotary, std::int64_t length) {
  const std::int64_t dim = rotary.dim();
  const bool is_long = rotary.original_context_length() > 0 && length > rotary.original_context_length();
  if (!rotary.frequencies().empty()) {
    const auto& given =
        is_long && !rotary.long_frequencies().empty() ? rotary.long_frequencies() : rotary.frequencies();
    return std::vector<double>(given.begin(), given.end());
  }
  const double base = is_long ? LongBase(rotary, length) : rotary.base();
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < dim / 2; ++i) {
    double frequency = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
    if (rotary.has_linear_factor()) frequency /= rotary.linear_factor();
    if (rotary.has_llama3()) frequency = ScaleAsLlama3(frequency, rotary.llama3());
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace attend::server
