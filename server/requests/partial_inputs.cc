#include "server/requests/partial_inputs.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "core/tensor/aligned_buffer.h"

namespace attend::server {
namespace {

constexpr FieldPath kPartials = {v1::ScaledDotProductAttentionRequest::kPartialsFieldNumber};
constexpr TensorRule kOutputRule = {"partials.output",
                                    kPartials / v1::PartialAttention::kOutputFieldNumber,
                                    TypeRule::kFloat32,
                                    {3, 4, 5},
                                    "[P, (B,) (H,) T, V]"};
constexpr TensorRule kLogSumExpRule = {"partials.log_sum_exp",
                                       kPartials / v1::PartialAttention::kLogSumExpFieldNumber,
                                       TypeRule::kFloat32,
                                       {2, 3, 4},
                                       "[P, (B,) (H,) T]"};

std::vector<std::int64_t> ShapeOf(const InputTensor& tensor) {
  std::vector<std::int64_t> shape;
  shape.reserve(static_cast<std::size_t>(tensor.rank()));
  for (int i = 0; i < tensor.rank(); ++i) shape.push_back(tensor.axis(i));
  return shape;
}

absl::Status CheckShape(const InputTensor& tensor, const char* field, const std::vector<std::int64_t>& expected) {
  if (ShapeOf(tensor) == expected) return absl::OkStatus();
  const std::string shape = absl::StrCat(field, ".shape");
  return InvalidField(shape,
                      absl::StrCat(shape, " is ", ShapeText(ShapeOf(tensor)), "; it must be ", ShapeText(expected),
                                   ", a number of parts and then the shape of the results"));
}

absl::Status Missing(const char* field) {
  return InvalidField(field, absl::StrCat(field, " is missing; partials need their output and their log_sum_exp"));
}

}  // namespace

std::vector<PartialAttention> PartialInputs::Parts() const {
  std::vector<PartialAttention> parts;
  if (!output) return parts;
  const std::int64_t num_parts = output.axis(0);
  const auto rows = static_cast<std::size_t>(log_sum_exp.num_elements() / num_parts);
  const auto size = static_cast<std::size_t>(output.num_elements() / num_parts);
  for (std::size_t p = 0; p < static_cast<std::size_t>(num_parts); ++p) {
    parts.push_back({{output.floats() + p * size, size}, {log_sum_exp.floats() + p * rows, rows}});
  }
  return parts;
}

absl::Status PartialInputs::CheckWith(const OutputSet& outputs) const {
  if (!output) return absl::OkStatus();
  for (v1::OutputKind kind :
       {v1::OUTPUT_KIND_ATTENTION_WEIGHTS, v1::OUTPUT_KIND_SCORES, v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS}) {
    if (!outputs.Has(kind)) continue;
    return InvalidField("partials", absl::StrCat("partials are given and outputs names ", v1::OutputKind_Name(kind),
                                                 "; weights and scores over all keys together are not known here, so "
                                                 "ask for the output and the log-sum-exp alone"));
  }
  return absl::OkStatus();
}

absl::StatusOr<PartialInputs> CheckPartials(const RawPartials& raw, const InputTensor& query,
                                            const InputTensor& value) {
  PartialInputs partials;
  if (!query || !value) return partials;
  const absl::StatusOr<InputTensor> output = CheckTensor(raw.output, kOutputRule);
  if (!output.ok()) return output.status();
  if (!*output) return Missing(kOutputRule.field);
  const absl::StatusOr<InputTensor> log_sum_exp = CheckTensor(raw.log_sum_exp, kLogSumExpRule);
  if (!log_sum_exp.ok()) return log_sum_exp.status();
  if (!*log_sum_exp) return Missing(kLogSumExpRule.field);
  if (query.type() != DataType::kFloat32) {
    return InvalidField("partials",
                        absl::StrCat("partials are given and query is ", v1::DataType_Name(ToWire(query.type())),
                                     "; merging is done on FLOAT32 results, so send the query as that"));
  }
  if (output->axis(0) > kMaxPartialResults) {
    return InvalidField("partials.output.shape[0]",
                        absl::StrCat("partials.output.shape[0] is ", output->axis(0), "; at most ", kMaxPartialResults,
                                     " parts are merged at a time"));
  }
  std::vector<std::int64_t> expected = ShapeOf(query);
  expected.insert(expected.begin(), output->axis(0));
  expected.back() = value.axis(-1);
  if (absl::Status s = CheckShape(*output, kOutputRule.field, expected); !s.ok()) return s;
  expected.pop_back();
  if (absl::Status s = CheckShape(*log_sum_exp, kLogSumExpRule.field, expected); !s.ok()) return s;
  return PartialInputs{*output, *log_sum_exp};
}

absl::Status ComputeAndMerge(const SdpaProblem& problem, const std::vector<PartialAttention>& parts,
                             const SdpaOutputs& outputs, const ComputeContext& context) {
  const std::int64_t rows = problem.batch() * problem.num_heads() * problem.query_length();
  const AlignedBuffer<float> own_output(outputs.output ? 0 : rows * problem.value_dim());
  const AlignedBuffer<float> own_log_sum_exp(outputs.log_sum_exp != nullptr ? 0 : rows);
  SdpaOutputs own = outputs;
  if (!own.output) {
    own.output = SplitHeads(own_output.data(), problem.batch(), problem.num_heads(), problem.query_length(),
                            problem.value_dim());
  }
  if (own.log_sum_exp == nullptr) own.log_sum_exp = own_log_sum_exp.data();
  if (absl::Status computed = ComputeSdpa(problem, own, context); !computed.ok()) return computed;
  // A row whose own keys' log-sum-exp is below float32's range may have a result all the same: its own, when no part
  // saw a key. Beside a part that did, its own keys weigh nothing.
  const MergedAttention merged{{own.output.As<float>().data, static_cast<std::size_t>(rows * problem.value_dim())},
                               {own.log_sum_exp, static_cast<std::size_t>(rows)},
                               /*keeps_unseen=*/true};
  std::vector<PartialAttention> all = {{merged.output, merged.log_sum_exp}};
  all.insert(all.end(), parts.begin(), parts.end());
  return MergePartialAttention(all, merged);
}

}  // namespace attend::server
