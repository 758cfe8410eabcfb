// The problems of core_bits with norms and rotary embedding, from packed weights and unpacked ones.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/layer/projection.h"
#include "tests/core/core_bits_cases.h"
#include "tests/support/layer_case.h"

namespace attend::testing {
namespace {

std::vector<Part> Compute(const AttendProblem::Spec& spec, InstructionSet set) {
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(spec);
  if (!problem.ok()) return {};
  LayerResult result(*problem);
  ComputeContext context;
  context.instruction_set = set;
  if (!ComputeAttend(*problem, result.outputs, context).ok()) return {};
  return {{"output", result.output.Doubles()},
          {"query", result.query.Doubles()},
          {"key", result.key.Doubles()},
          {"value", result.value.Doubles()}};
}

std::vector<Part> ComputeLayer(const LayerSpec& spec, InstructionSet set) {
  return Compute(LayerCase(spec).ProblemSpec(), set);
}

std::vector<Part> ComputePackedLayer(const LayerSpec& spec, InstructionSet set) {
  const LayerCase layer_case(spec);
  AttendProblem::Spec problem = layer_case.ProblemSpec();
  LayerView& layer = *problem.layer;
  const PackedLinear query(layer.query, set), key(layer.key, set), value(layer.value, set);
  layer.query.packed = &query, layer.key.packed = &key, layer.value.packed = &value;
  return Compute(problem, set);
}

void Add(const std::string& name, const LayerSpec& spec, std::vector<BitsCase>& cases) {
  cases.push_back({name, [spec](InstructionSet set) { return ComputeLayer(spec, set); }});
}

LayerSpec Base(DataType type, std::int64_t head_dim) {
  LayerSpec spec;
  spec.type = spec.weight_type = type;
  spec.queries = spec.keys = 21, spec.embed = 40;
  spec.heads = 4, spec.kv_heads = 2, spec.head_dim = head_dim, spec.value_dim = 9;
  spec.causal = CausalMode::kBottomRight;
  return spec;
}

// Heads around the partial sums of norms, whole and partial rotation, near the start of a text and far from it.
void AddHeadSizes(DataType type, std::vector<BitsCase>& cases) {
  for (std::int64_t head_dim : {2, 7, 16, 37, 64}) {
    const std::string prefix = absl::StrCat("layer/", std::string(DataTypeName(type)), "/", head_dim);
    LayerSpec rms = Base(type, head_dim);
    rms.query_norm = rms.key_norm = NormOver::kHead;
    rms.adds_one = true;
    Add(absl::StrCat(prefix, "/rms"), rms, cases);
    LayerSpec norm = Base(type, head_dim);
    norm.query_norm = norm.key_norm = NormOver::kToken;
    norm.kind = NormKind::kLayer, norm.norm_bias = true;
    Add(absl::StrCat(prefix, "/layer_norm"), norm, cases);
    LayerSpec rotary = Base(type, head_dim);
    rotary.rotary_dim = head_dim / 2 * 2;
    Add(absl::StrCat(prefix, "/rotary"), rotary, cases);
    rotary.interleaved = true, rotary.position_offset = kMaxPositionOffset;
    Add(absl::StrCat(prefix, "/rotary_far"), rotary, cases);
    rms.rotary_dim = (head_dim + 2) / 4 * 2, rms.position_offset = 100003;
    Add(absl::StrCat(prefix, "/rms_rotary"), rms, cases);
  }
}

}  // namespace

void AddLayerCases(std::vector<BitsCase>& cases) {
  for (DataType type : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kFloat64}) {
    AddHeadSizes(type, cases);
  }
  LayerSpec ragged = Base(DataType::kFloat32, 20);
  ragged.query_norm = NormOver::kHead, ragged.rotary_dim = 20, ragged.query_offsets = {0, 3, 3, 20, 21};
  Add("layer/ragged", ragged, cases);
  LayerSpec cross = Base(DataType::kFloat32, 20);
  cross.context = true, cross.keys = 70, cross.batch = 2, cross.valid_lengths = {9, 70}, cross.rotary_dim = 14;
  Add("layer/cross", cross, cases);
  for (DataType type : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
    LayerSpec packed = Base(DataType::kFloat32, 37);
    packed.weight_type = type, packed.embed = 130;
    cases.push_back({absl::StrCat("layer/packed/", std::string(DataTypeName(type))),
                     [packed](InstructionSet set) { return ComputePackedLayer(packed, set); }});
  }
}

}  // namespace attend::testing
