#include "formats/layers/naming_table.h"

namespace attend::formats {
namespace {

constexpr std::string_view kHere[] = {""};
constexpr std::string_view kAttention[] = {"attention.", ""};
constexpr std::string_view kAttn[] = {"attn.", ""};
constexpr std::string_view kSelfAttn[] = {"self_attn.", ""};
constexpr std::string_view kNeox[] = {"attention.", "self_attention.", ""};
constexpr std::string_view kSelfAttention[] = {"self_attention.", ""};
constexpr std::string_view kAnyModule[] = {"self_attn.",      "attn.",           "attention.",
                                           "self_attention.", "attn.attention.", ""};
constexpr std::string_view kT5[] = {"layer.0.SelfAttention.", "SelfAttention.", "EncDecAttention.", ""};

constexpr std::string_view kCtrl[] = {"multi_head_attention.", ""};
constexpr std::string_view kSubLayer[] = {"first_sub_layer.", ""};

constexpr std::string_view kNotebookOutputs[] = {"output", "out_proj", "out"};
constexpr std::string_view kOutputDense[] = {"output.dense"};
constexpr std::string_view kDense[] = {"dense"};
constexpr std::string_view kOutLin[] = {"out_lin"};
constexpr std::string_view kOutProj[] = {"out_proj"};
constexpr std::string_view kOProj[] = {"o_proj", "projection_layer", "Wo"};
constexpr std::string_view kCProj[] = {"c_proj"};
constexpr std::string_view kProj[] = {"proj", "projection"};
constexpr std::string_view kWo[] = {"Wo"};
constexpr std::string_view kO[] = {"o"};
constexpr std::string_view kOutProjection[] = {"out_projection"};
constexpr std::string_view kToOut[] = {"to_out.0", "to_out", "out_proj"};

constexpr NormNames kQNorm[] = {
    {"q_norm", "k_norm"}, {"q_layernorm", "k_layernorm"}, {"query_layernorm", "key_layernorm"}};
constexpr NormNames kQLayerNorm[] = {{"q_layernorm", "k_layernorm"}};
constexpr NormNames kMptNorm[] = {{"q_ln", "k_ln"}};
constexpr NormNames kDiffusersNorm[] = {{"norm_q", "norm_k"}};

// The norms around the attention of encoders, and the names that older versions wrote.
constexpr std::string_view kBertBeside[] = {"output.LayerNorm.", "LayerNorm.", "ln.", "self_attn_layer_norm.",
                                            "layer_norm."};

constexpr Naming kNamings[] = {
    {.name = "notebook",
     .modules = kHere,
     .query = "query",
     .key = "key",
     .value = "value",
     .outputs = kNotebookOutputs,
     .needs_output = false,
     .one_head = true},
    {.name = "torch-mha",
     .modules = kAnyModule,
     .fusion = Fusion::kRows,
     .query = "in_proj",
     .outputs = kOutProj,
     .needs_output = false,
     .separator = "_"},
    {.name = "torch-mha",
     .modules = kAnyModule,
     .query = "q_proj",
     .key = "k_proj",
     .value = "v_proj",
     .outputs = kOutProj,
     .needs_output = false,
     .separator = "_",
     .fused_bias = "in_proj_bias"},
    {.name = "bert",
     .modules = kAttention,
     .query = "self.query",
     .key = "self.key",
     .value = "self.value",
     .outputs = kOutputDense,
     .beside = kBertBeside},
    {.name = "albert",
     .modules = kAttention,
     .query = "query",
     .key = "key",
     .value = "value",
     .outputs = kDense,
     .beside = kBertBeside},
    {.name = "vit",
     .modules = kAttention,
     .query = "attention.query",
     .key = "attention.key",
     .value = "attention.value",
     .outputs = kOutputDense,
     .has_separate_biases = true,
     .beside = kBertBeside},
    {.name = "distilbert",
     .modules = kAttention,
     .query = "q_lin",
     .key = "k_lin",
     .value = "v_lin",
     .outputs = kOutLin},
    {.name = "gpt2",
     .modules = kAttn,
     .fusion = Fusion::kRows,
     .query = "c_attn",
     .outputs = kCProj,
     .transposed = true},
    {.name = "gpt-bigcode",
     .modules = kAttn,
     .fusion = Fusion::kBigCode,
     .query = "c_attn",
     .outputs = kCProj,
     .model_type = "gpt_bigcode"},
    {.name = "codegen", .modules = kAttn, .fusion = Fusion::kFourths, .query = "qkv_proj", .outputs = kOutProj},
    {.name = "gpt-neox",
     .modules = kNeox,
     .fusion = Fusion::kGroups,
     .query = "query_key_value",
     .outputs = kDense,
     .norms = kQLayerNorm},
    {.name = "chatglm",
     .modules = kSelfAttention,
     .fusion = Fusion::kRows,
     .query = "query_key_value",
     .outputs = kDense,
     .model_type = "chatglm"},
    {.name = "llama",
     .modules = kAnyModule,
     .query = "q_proj",
     .key = "k_proj",
     .value = "v_proj",
     .outputs = kOProj,
     .norms = kQNorm},
    {.name = "opt",
     .modules = kAnyModule,
     .query = "q_proj",
     .key = "k_proj",
     .value = "v_proj",
     .outputs = kOutProj,
     .norms = kQNorm},
    {.name = "phi",
     .modules = kSelfAttn,
     .query = "q_proj",
     .key = "k_proj",
     .value = "v_proj",
     .outputs = kDense,
     .norms = kQLayerNorm},
    {.name = "phi3",
     .modules = kSelfAttn,
     .fusion = Fusion::kRows,
     .query = "qkv_proj",
     .outputs = kOProj,
     .norms = kQNorm},
    {.name = "mpt", .modules = kAttn, .fusion = Fusion::kRows, .query = "Wqkv", .outputs = kOutProj, .norms = kMptNorm},
    {.name = "modernbert", .modules = kAttn, .fusion = Fusion::kRows, .query = "Wqkv", .outputs = kWo},
    {.name = "timm",
     .modules = kAnyModule,
     .fusion = Fusion::kRows,
     .query = "qkv",
     .outputs = kProj,
     .norms = kQNorm,
     .has_separate_biases = true},
    {.name = "diffusers",
     .modules = kAnyModule,
     .query = "to_q",
     .key = "to_k",
     .value = "to_v",
     .outputs = kToOut,
     .norms = kDiffusersNorm},
    {.name = "ctrl", .modules = kCtrl, .query = "Wq", .key = "Wk", .value = "Wv", .outputs = kDense},
    {.name = "nemo",
     .modules = kSubLayer,
     .query = "query_net",
     .key = "key_net",
     .value = "value_net",
     .outputs = kOutProjection},
    {.name = "t5", .modules = kT5, .query = "q", .key = "k", .value = "v", .outputs = kO, .unit_scale = true},
};

}  // namespace

absl::Span<const Naming> Namings() { return kNamings; }

}  // namespace attend::formats
