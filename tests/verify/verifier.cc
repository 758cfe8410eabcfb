#include "tests/verify/verifier.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/requests/attention_flags.h"
#include "client/cli/requests/tensor_source.h"
#include "client/cli/results/output_format.h"
#include "client/text/message_json.h"
#include "tests/verify/reference_check.h"

namespace attend::client {
namespace {

// The kind that returns the tensor called `name`, or OUTPUT_KIND_UNSPECIFIED.
v1::OutputKind OutputKindOf(const std::string& name) {
  for (int number = 1; number < v1::OutputKind_ARRAYSIZE; ++number) {
    const auto kind = static_cast<v1::OutputKind>(number);
    if (!v1::OutputKind_IsValid(number)) continue;
    const std::vector<std::string> names = OutputNames(kind);
    if (std::find(names.begin(), names.end(), name) != names.end()) return kind;
  }
  return v1::OUTPUT_KIND_UNSPECIFIED;
}

absl::StatusOr<Comparison> CompareExpected(const Expectation& expectation, const Outcome& outcome,
                                           const ErrorScale& scale) {
  const absl::StatusOr<Tensor> expected = LoadTensor(expectation.source);
  if (!expected.ok()) return expected.status();
  const Tensor* got = Find(outcome.tensors, expectation.name);
  if (got == nullptr) return absl::InternalError(absl::StrCat("the server returned no ", expectation.name));
  if (got->shape() != expected->shape()) {
    return absl::InvalidArgumentError(absl::StrCat(expectation.name, " has shape ", ShapeString(got->shape()), ", but ",
                                                   expectation.source, " has ", ShapeString(expected->shape())));
  }
  return Compare(expectation.name, expectation.source, *got, expected->ToDoubles(),
                 ErrorBound(expectation.name, scale));
}

Json ComparisonJson(const Comparison& comparison) {
  return {{"name", comparison.name},
          {"against", comparison.against},
          {"largest_error", JsonNumber(static_cast<float>(comparison.error))},
          {"bound", JsonNumber(static_cast<float>(comparison.bound))},
          {"index", comparison.index},
          {"ok", comparison.ok()}};
}

}  // namespace

void Verifier::AddFlags(CLI::App* command) {
  AddFormatFlag(command, {"json", "table"}, &format_);
  command
      ->add_option(
          "--expect", expect_,
          "Compare with [NAME=]FILE.npy or [NAME=]FILE.safetensors:TENSOR instead of the reference; NAME is the "
          "returned tensor (default: output). May be repeated")
      ->allow_extra_args(false)
      ->group("Results");
}

absl::StatusOr<std::vector<v1::OutputKind>> Verifier::Begin(const std::vector<v1::OutputKind>& returned,
                                                            const std::vector<std::string>& inputs) {
  inputs_ = inputs;
  std::vector<v1::OutputKind> kinds = returned;
  for (const std::string& text : expect_) {
    const std::size_t equals = text.find('=');
    const std::string name = equals == std::string::npos ? "output" : text.substr(0, equals);
    const v1::OutputKind kind = OutputKindOf(name);
    if (kind == v1::OUTPUT_KIND_UNSPECIFIED) {
      return absl::InvalidArgumentError(absl::StrCat("--expect ", text, ": no returned tensor is called '", name, "'"));
    }
    expectations_.push_back({name, equals == std::string::npos ? text : text.substr(equals + 1)});
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  }
  return kinds;
}

absl::StatusOr<std::vector<Comparison>> Verifier::CompareAll(const ComputationRequest& request,
                                                             const Outcome& outcome) const {
  const auto* const attend = std::get_if<v1::AttendRequest>(&request);
  if (expectations_.empty() && attend != nullptr && !attend->layer_name().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the reference computes with the layer's weights, and those of '", attend->layer_name(),
                     "' are in the server; give their file with --layer FILE.safetensors, or a result with --expect"));
  }
  if (expectations_.empty()) return VerifyAgainstReference(request, outcome);
  const ErrorScale scale = ComputeErrorScale(request);
  std::vector<Comparison> comparisons;
  for (const Expectation& expectation : expectations_) {
    absl::StatusOr<Comparison> comparison = CompareExpected(expectation, outcome, scale);
    if (!comparison.ok()) return comparison.status();
    comparisons.push_back(*std::move(comparison));
  }
  return comparisons;
}

absl::Status Verifier::Take(std::size_t index, const ComputationRequest& request, const Outcome& outcome) {
  const absl::StatusOr<std::vector<Comparison>> comparisons = CompareAll(request, outcome);
  if (!comparisons.ok()) return comparisons.status();
  Json json = {{"input", inputs_[index]}, {"comparisons", Json::array()}};
  for (const Comparison& comparison : *comparisons) {
    json["comparisons"].push_back(ComparisonJson(comparison));
    if (format_ != "json") std::cout << Describe(comparison) << "\n";
    differs_ = differs_ || !comparison.ok();
  }
  if (format_ == "json") std::cout << json.dump() << "\n";
  std::cout.flush();
  return std::cout.good() ? absl::OkStatus() : absl::UnknownError("cannot write to standard output");
}

}  // namespace attend::client
