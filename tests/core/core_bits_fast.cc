// The problems of `core_bits --fast` and `--amx`: PRECISION_FAST of attention and of layers, in BFLOAT16.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/core/core_bits_cases.h"
#include "tests/core/fast_emulation.h"
#include "tests/support/layer_case.h"
#include "tests/support/sdpa_case.h"
#include "tests/support/typed_tensor.h"

namespace attend::testing {
namespace {

constexpr auto kBF16 = DataType::kBFloat16;

// An instruction set and the family beside it.
struct Kernels {
  InstructionSet set;
  FastKernels family;
};

ComputeContext ContextOf(const Kernels& kernels) {
  ComputeContext context;
  context.instruction_set = kernels.set;
  context.fast_kernels = kernels.family;
  return context;
}

std::vector<Part> ComputeSdpaCase(const SdpaCaseSpec& s, const Kernels& kernels) {
  const SdpaCase c(s);
  const TypedTensor q = TypedTensor::From(c.query, kBF16), k = TypedTensor::From(c.key, kBF16),
                    v = TypedTensor::From(c.value, kBF16);
  AttentionOptions options = c.options;
  options.precision = Precision::kFast;
  const absl::StatusOr<SdpaProblem> problem = SdpaProblem::Create(
      {q.View(s.batch, s.heads, s.queries, s.head_dim), k.View(s.batch, s.kv_heads, s.keys, s.head_dim),
       v.View(s.batch, s.kv_heads, s.keys, s.value_dim), options});
  if (!problem.ok()) return {};
  SdpaResult result(*problem, Ask::kEverything);  // In FLOAT32, which hides nothing.
  if (!ComputeSdpa(*problem, result.Outputs(), ContextOf(kernels)).ok()) return {};
  return {{"output", Widened(result.output)},
          {"log_sum_exp", Widened(result.log_sum_exp)},
          {"weights", Widened(result.weights)},
          {"scores", Widened(result.scores)}};
}

std::vector<Part> ComputeLayerCase(const LayerSpec& spec, const Kernels& kernels) {
  const LayerCase layer(spec);
  AttendProblem::Spec with_precision = layer.ProblemSpec();
  with_precision.options.precision = Precision::kFast;
  const absl::StatusOr<AttendProblem> problem = AttendProblem::Create(with_precision);
  if (!problem.ok()) return {};
  LayerResult result(*problem);
  if (!ComputeAttend(*problem, result.outputs, ContextOf(kernels)).ok()) return {};
  return {{"output", result.output.Doubles()},
          {"query", result.query.Doubles()},
          {"key", result.key.Doubles()},
          {"value", result.value.Doubles()}};
}

void AddSdpa(FastKernels family, std::vector<BitsCase>& cases) {
  for (std::int64_t queries : {1, 3, 8, 20, 61}) {
    for (std::int64_t keys : {1, 65, 700, 2500}) {
      SdpaCaseSpec plain;
      plain.queries = queries, plain.keys = keys, plain.heads = 2, plain.kv_heads = 1;
      plain.head_dim = 64, plain.value_dim = 40, plain.magnitude = 3;
      const auto add = [&](const char* name, const SdpaCaseSpec& spec) {
        cases.push_back({absl::StrCat("fast/sdpa/", queries, "x", keys, "/", name), [spec, family](InstructionSet set) {
                           return ComputeSdpaCase(spec, {set, family});
                         }});
      };
      add("plain", plain);
      SdpaCaseSpec rich = plain;
      rich.head_dim = 130, rich.value_dim = 33, rich.magnitude = 0.5f;
      rich.causal = CausalMode::kBottomRight, rich.window_left = keys / 2, rich.softcap = 4.0f;
      rich.mask = rich.bias = rich.alibi = rich.sinks = rich.key_mask = true;
      add("every_option", rich);
    }
  }
}

void AddLayers(FastKernels family, std::vector<BitsCase>& cases) {
  LayerSpec base;
  base.type = base.weight_type = kBF16;
  base.queries = base.keys = 53, base.heads = 4, base.kv_heads = 2;
  for (std::int64_t embed : {2, 40, 600}) {
    LayerSpec plain = base;
    plain.embed = embed, plain.head_dim = 64, plain.value_dim = 33;
    LayerSpec turned = plain;
    turned.query_norm = turned.key_norm = NormOver::kHead, turned.rotary_dim = 48;
    turned.causal = CausalMode::kBottomRight;
    for (const auto& [name, spec] : {std::pair<const char*, LayerSpec>{"plain", plain}, {"norms_and_rotary", turned}}) {
      cases.push_back({absl::StrCat("fast/layer/", embed, "/", name), [spec = spec, family](InstructionSet set) {
                         return ComputeLayerCase(spec, {set, family});
                       }});
    }
  }
}

// What the emulation knows: outputs of plain problems, and of layers all that they return.
void AddEmulated(FastKernels family, std::vector<BitsCase>& cases) {
  for (std::int64_t queries : {1, 5, 20, 61}) {
    for (std::int64_t keys : {1, 65, 700}) {
      SdpaCaseSpec spec;
      spec.queries = queries, spec.keys = keys, spec.heads = 4, spec.kv_heads = 2, spec.batch = 2;
      spec.head_dim = keys == 65 ? 34 : 64, spec.value_dim = keys == 65 ? 33 : 64, spec.magnitude = 4;
      if (queries <= keys) spec.causal = CausalMode::kBottomRight;
      cases.push_back({absl::StrCat("fast/emulated/sdpa/", queries, "x", keys),
                       [spec, family](InstructionSet set) {
                         return std::vector<Part>{ComputeSdpaCase(spec, {set, family}).at(0)};
                       },
                       [spec, family] {
                         return std::vector<Part>{{"output", EmulatedSdpa(SdpaCase(spec), family)}};
                       }});
    }
  }
  for (std::int64_t embed : {2, 40, 600}) {
    LayerSpec spec;
    spec.type = spec.weight_type = kBF16;
    spec.queries = spec.keys = 53, spec.heads = 4, spec.kv_heads = 2, spec.embed = embed;
    spec.head_dim = 34, spec.value_dim = 33, spec.causal = CausalMode::kBottomRight;
    const auto compute = [spec, family](InstructionSet set) {
      Part all{"all", {}};
      for (const Part& part : ComputeLayerCase(spec, {set, family})) {
        all.elements.insert(all.elements.end(), part.elements.begin(), part.elements.end());
      }
      return std::vector<Part>{all};
    };
    cases.push_back({absl::StrCat("fast/emulated/layer/", embed), compute, [spec, family] {
                       return std::vector<Part>{{"all", EmulatedLayer(LayerCase(spec), family)}};
                     }});
  }
}

}  // namespace

std::vector<BitsCase> FastBitsCases(FastKernels family) {
  std::vector<BitsCase> cases;
  AddEmulated(family, cases);
  AddSdpa(family, cases);
  AddLayers(family, cases);
  return cases;
}

}  // namespace attend::testing
