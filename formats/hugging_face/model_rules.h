// What transformers' code does to attention and neither weights nor config.json say, as data: one row for each model
// type whose rules are known.
#ifndef ATTEND_FORMATS_HUGGING_FACE_MODEL_RULES_H_
#define ATTEND_FORMATS_HUGGING_FACE_MODEL_RULES_H_

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "formats/layers/layer_settings.h"

namespace attend::formats {

// Which keys a self-attention layer sees.
enum class MaskRule : std::uint8_t {
  kNone,     // All.
  kCausal,   // Those before, unless `is_causal` is false or `use_bidirectional_attention` is true.
  kDecoder,  // Those before if `is_decoder` is true, else all.
  kSeq2Seq,  // Those before in the decoder, all in the encoder; the prefix says which of them it is.
};

// Which layers see a window only. `layer_types`, if the row has it and the file says it, decides instead.
enum class WindowRule : std::uint8_t {
  kNever,
  kAll,                // All; `sliding_window` gives the size.
  kByTypes,            // Those that `layer_types` says, which must be there.
  kLastLayers,         // Those from `max_window_layers` on.
  kEven,               // Those with an even index.
  kPattern,            // All but each `sliding_window_pattern`-th.
  kSmolLm,             // Those without rotary embeddings.
  kGptNeo,             // Those that `attention_layers` or `attention_types` call local, by `window_size`.
  kModernBert,         // All but each `global_attn_every_n_layers`-th; `local_attention` / 2 tokens to both sides.
  kModernBertDecoder,  // The same layers; `local_attention` / 2 tokens with the query's own.
};

// Bits of ModelRules::traits.
inline constexpr std::uint32_t kAddsOne = 1;               // Norms multiply by 1 + weight.
inline constexpr std::uint32_t kLayerNorm = 2;             // Norms of query and key are layer norms.
inline constexpr std::uint32_t kUnitScale = 4;             // Scores are not divided by sqrt(E).
inline constexpr std::uint32_t kNormAfterRotary = 8;       // Query and key are turned first and then normalised.
inline constexpr std::uint32_t kRotaryWhereSliding = 16;   // Layers that see all have no rotary embedding.
inline constexpr std::uint32_t kRotaryWithoutWindow = 32;  // All have one if `sliding_window` is null.
inline constexpr std::uint32_t kRotaryByType = 64;         // Only with the `position_embedding_type` rotary or rope.
inline constexpr std::uint32_t kAlibi = 128;               // ALiBi's slopes.
inline constexpr std::uint32_t kRelativeBias = 256;        // Adds a bias by distance that a request has to bring.
inline constexpr std::uint32_t kRotaryTable = 1024;        // Its sines and cosines are a tensor of the checkpoint.
inline constexpr std::uint32_t kScalesWhereFull = 2048;    // `rope_scaling` is about layers that see all.
inline constexpr std::uint32_t kHalvesWindow = 512;        // If bidirectional, a window is halved and has two sides.
inline constexpr std::uint32_t kDecoderAlone = 4096;       // What its encoder does is not supported.
inline constexpr std::uint32_t kHeadsOf64 = 8192;          // As many heads as 64 goes into `hidden_size`.
inline constexpr std::uint32_t kWholeWindow = 16384;   // If bidirectional, a window has as many tokens to each side.
inline constexpr std::uint32_t kUnevenWindow = 32768;  // As kHalvesWindow, an even window one less to the left.
inline constexpr std::uint32_t kOneBase = 65536;       // Layers with a window must turn as those without.
inline constexpr std::uint32_t kLongRopeAlone =
    131072;  // Takes no other scaling of rotary embeddings, or it for another.
inline constexpr std::uint32_t kTwoMagnitudes = 262144;   // `short_mscale` and `long_mscale` are longrope's factor.
inline constexpr std::uint32_t kFixedRotary = 524288;     // `rope_theta`, shares and scalings are not read.
inline constexpr std::uint32_t kNormsNotKnown = 1048576;  // What norms `use_qk_norm` adds is not known.

struct ModelRules {
  std::string_view types;  // Values of `model_type`, separated by spaces.
  MaskRule mask;
  RotaryForm rotary;
  WindowRule window;
  std::uint32_t traits;
  // A JSON object: the keys of config.json that this model's attention reads, beside those that all models have
  // (hugging_face_config.h), and the default of transformers 4.57 and 5. "?": their defaults differ or cannot be used,
  // so a file without the key, or with null, is refused. `num_attention_heads` is there where published files leave it
  // out.
  std::string_view keys;
  std::string_view refused = {};  // Why no layer of the model can be computed; empty for one that can.
};

// A model of several parts, each with a configuration of its own within config.json.
struct CompositeRules {
  std::string_view type;
  std::string_view text;  // The model types of the parts when they do not say it themselves.
  std::string_view vision;
  // Keys beside the parts' configurations that are about what joins the parts, or about training, and about no layer of
  // a part; separated by spaces.
  std::string_view joint_keys = {};
};

absl::Span<const ModelRules> AllModelRules();
absl::Span<const CompositeRules> AllCompositeRules();

// Null when there are none. Pure.
const ModelRules* FindModelRules(std::string_view model_type);
const CompositeRules* FindCompositeRules(std::string_view model_type);

}  // namespace attend::formats

#endif  // ATTEND_FORMATS_HUGGING_FACE_MODEL_RULES_H_
