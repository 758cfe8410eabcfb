#include "formats/layers/layer_place.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace attend::formats {
namespace {

constexpr absl::string_view kCrossModules[] = {"EncDecAttention", "encoder_attn", "encoder_attention",
                                               "crossattention",  "cross_attn",   "cross_attention",
                                               "second_sub_layer"};

constexpr absl::string_view kJoints[] = {"adapter", "aligner", "connector", "merger",    "perceiver",
                                         "project", "qformer", "q_former",  "resampler", "x_attn"};

bool IsJoint(absl::string_view part) {
  return std::any_of(std::begin(kJoints), std::end(kJoints),
                     [part](absl::string_view word) { return absl::StrContains(part, word); });
}

}  // namespace

LayerPlace PlaceOf(std::string_view prefix) {
  LayerPlace place;
  const std::string text(prefix);
  absl::string_view last;
  for (const absl::string_view part : absl::StrSplit(text, '.')) {
    std::int32_t number = 0;
    const bool is_number = absl::SimpleAtoi(part, &number) && number >= 0;
    if (is_number && !place.index) {
      place.index = number;
    } else if (is_number && number == 1 && last == "layer" && place.in_decoder) {
      place.is_cross = true;  // block.N.layer.1 of T5's decoder is the attention to the encoder.
    }
    place.in_encoder = place.in_encoder || part == "encoder";
    place.in_decoder = place.in_decoder || part == "decoder";
    const bool crosses = std::find(std::begin(kCrossModules), std::end(kCrossModules), part) != std::end(kCrossModules);
    place.is_cross = place.is_cross || crosses;
    place.is_between_parts = place.is_between_parts || IsJoint(part);
    last = part;
  }
  return place;
}

}  // namespace attend::formats
