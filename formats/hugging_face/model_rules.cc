#include "formats/hugging_face/model_rules.h"

#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace attend::formats {
namespace {

constexpr ModelRules kRules[] = {
    {"llama arcee aria_text jais2", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":null,"rope_theta":10000.0})"},
    {"emu3_text_model solar_open", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rope_theta":1000000.0})"},
    {"seed_oss", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rope_theta":10000.0})"},
    {"higgs_audio_v2", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rope_scaling":"?","rope_theta":10000.0})"},
    {"mistral", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kAll, 0,
     R"({"num_key_value_heads":8,"rope_theta":10000.0,"sliding_window":4096})"},
    {"mixtral phimoe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kAll, 0,
     R"({"num_key_value_heads":8,"rope_theta":1000000.0,"sliding_window":null})"},
    {"starcoder2", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kAll, 0,
     R"({"num_key_value_heads":2,"rope_theta":10000.0,"sliding_window":null})"},
    {"phi3", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kAll, 0,
     R"({"num_key_value_heads":null,"original_max_position_embeddings":4096,"rope_theta":10000.0,"sliding_window":null})"},
    {"ministral", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kAll, 0,
     R"({"layer_types":null,"num_key_value_heads":8,"rope_theta":10000.0,"sliding_window":4096})"},
    {"qwen2", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kLastLayers, 0,
     R"({"layer_types":null,"max_window_layers":28,"num_key_value_heads":32,"rope_theta":10000.0,"sliding_window":4096,"use_sliding_window":false})"},
    {"qwen2_moe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kByTypes, 0,
     R"({"layer_types":"?","max_window_layers":28,"num_key_value_heads":16,"rope_theta":10000.0,"sliding_window":4096,"use_sliding_window":false})"},
    {"qwen2_vl_text qwen2_5_vl_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kLastLayers, 0,
     R"({"layer_types":null,"max_window_layers":80,"num_key_value_heads":8,"rope_theta":1000000.0,"sliding_window":4096,"use_sliding_window":false})"},
    {"qwen3", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kLastLayers, 0,
     R"({"layer_types":null,"max_window_layers":28,"num_key_value_heads":32,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,"use_sliding_window":false})"},
    {"dots1", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kLastLayers, 0,
     R"({"layer_types":null,"max_window_layers":62,"num_key_value_heads":32,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,"use_sliding_window":true})"},
    {"qwen3_moe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kAll, 0,
     R"({"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,"use_sliding_window":false})"},
    {"qwen3_vl_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":32,"rms_norm_eps":1e-06,"rope_theta":"?"})"},
    {"qwen3_vl_moe_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":16,"rms_norm_eps":1e-06,"rope_theta":"?"})"},
    {"gemma", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":16,"rope_theta":10000.0})"},
    {"gemma2 vaultgemma", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kEven, 0,
     R"({"attn_logit_softcapping":50.0,"layer_types":null,"num_key_value_heads":4,"query_pre_attn_scalar":256,"rope_theta":10000.0,"sliding_window":4096})"},
    {"gemma3_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kPattern,
     kAddsOne | kHalvesWindow | kScalesWhereFull,
     R"({"attn_logit_softcapping":null,"layer_types":null,"num_key_value_heads":4,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_local_base_freq":10000.0,"rope_theta":1000000.0,"sliding_window":4096,"sliding_window_pattern":6})"},
    {"olmo", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"clip_qkv":null,"num_key_value_heads":null,"rope_theta":10000.0})"},
    {"olmo2", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":null,"rms_norm_eps":1e-05,"rope_theta":10000.0})"},
    {"flex_olmo", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":null,"rms_norm_eps":1e-06,"rope_theta":500000.0})"},
    {"olmoe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"clip_qkv":null,"num_key_value_heads":null,"rms_norm_eps":1e-05,"rope_theta":10000.0})"},
    {"olmo3", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kPattern, kScalesWhereFull,
     R"({"layer_types":null,"num_key_value_heads":null,"rms_norm_eps":1e-05,"rope_theta":"?","sliding_window":4096,"sliding_window_pattern":4})"},
    {"stablelm", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, kLayerNorm,
     R"({"layer_norm_eps":1e-05,"num_key_value_heads":32,"partial_rotary_factor":0.25,"qk_layernorm":false,"rope_theta":10000.0})"},
    {"persimmon", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, kLayerNorm,
     R"({"layer_norm_eps":1e-05,"partial_rotary_factor":0.5,"qk_layernorm":true,"rope_theta":"?"})"},
    {"phi", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, kLayerNorm,
     R"({"layer_norm_eps":1e-05,"num_key_value_heads":null,"partial_rotary_factor":0.5,"qk_layernorm":false,"rope_theta":10000.0})"},
    {"cohere", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, kLayerNorm,
     R"({"layer_norm_eps":1e-05,"num_key_value_heads":null,"rope_theta":"?","use_qk_norm":false})"},
    {"cohere2", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kPattern, kRotaryWhereSliding,
     R"({"layer_types":null,"num_key_value_heads":null,"rope_theta":10000.0,"sliding_window":4096,"sliding_window_pattern":4})"},
    {"granite granitemoe granitemoeshared granite4_vision_text", MaskRule::kCausal, RotaryForm::kHalf,
     WindowRule::kNever, 0, R"({"attention_multiplier":1.0,"num_key_value_heads":null,"rope_theta":10000.0})"},
    {"granitemoehybrid", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, kRotaryByType,
     R"({"attention_multiplier":1.0,"num_key_value_heads":null,"position_embedding_type":null,"rope_theta":10000.0})"},
    {"falcon_h1", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"key_multiplier":"?","num_key_value_heads":8,"rope_theta":"?"})"},
    {"bamba", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"partial_rotary_factor":0.5,"rope_theta":10000.0})"},
    {"jamba nemotron_h", MaskRule::kCausal, RotaryForm::kNone, WindowRule::kNever, 0, R"({"num_key_value_heads":8})"},
    {"glm glm4", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"num_key_value_heads":2,"partial_rotary_factor":0.5,"rope_theta":10000.0})"},
    // The code that THUDM published; transformers has the same models as `glm`.
    {"chatglm", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"kv_channels":128,"multi_query_attention":false,"multi_query_group_num":1,"partial_rotary_factor":0.5,"pre_seq_len":null,"rope_ratio":1,"rope_theta":10000.0})"},
    {"glm4_moe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"partial_rotary_factor":0.5,"rms_norm_eps":1e-05,"rope_theta":10000.0,"use_qk_norm":false})"},
    {"smollm3", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kSmolLm, 0,
     R"({"layer_types":null,"no_rope_layer_interval":4,"no_rope_layers":null,"num_key_value_heads":4,"rope_theta":2000000.0,"sliding_window":null,"use_sliding_window":false})"},
    {"exaone4 exaone_moe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kPattern,
     kRotaryWhereSliding | kRotaryWithoutWindow,
     R"({"layer_types":null,"num_key_value_heads":32,"rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":4096,"sliding_window_pattern":4})"},
    {"gpt_oss", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kEven, 0,
     R"({"layer_types":null,"num_key_value_heads":8,"rope_scaling":"?","rope_theta":150000.0,"sliding_window":128})"},
    {"ernie4_5", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"num_key_value_heads":2,"rope_theta":500000.0})"},
    {"ernie4_5_moe", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"num_key_value_heads":4,"rope_theta":500000.0})"},
    {"helium", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"num_key_value_heads":20,"rope_theta":100000.0})"},
    {"llama4_text", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"no_rope_layer_interval":4,"no_rope_layers":null,"num_key_value_heads":8,"rope_theta":500000.0,"use_qk_norm":true})",
     "its layers attend within chunks of attention_chunk_size tokens, or scale their queries by position, which are "
     "not supported"},
    {"nemotron", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":null,"partial_rotary_factor":0.5,"rope_theta":10000.0})"},
    {"falcon", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"alibi":false,"multi_query":true,"new_decoder_architecture":false,"num_kv_heads":null,"rope_theta":10000.0})"},
    {"gpt_neox", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"rope_theta":10000.0,"rotary_pct":0.25})"},
    {"gpt_neo", MaskRule::kCausal, RotaryForm::kNone, WindowRule::kGptNeo, kUnitScale,
     R"({"attention_layers":null,"attention_types":"?","window_size":256})"},
    {"gptj codegen", MaskRule::kCausal, RotaryForm::kInterleaved, WindowRule::kNever, 0,
     R"({"rope_theta":10000.0,"rotary_dim":64})"},
    {"gpt2 imagegpt", MaskRule::kCausal, RotaryForm::kNone, WindowRule::kNever, 0,
     R"({"scale_attn_by_inverse_layer_idx":false,"scale_attn_weights":true})"},
    {"openai-gpt biogpt xglm opt clip_text_model clipseg_text_model owlvit_text_model owlv2_text_model "
     "metaclip_2_text_model groupvit_text_model kosmos_2_text_model musicgen_decoder",
     MaskRule::kCausal, RotaryForm::kNone, WindowRule::kNever, 0, R"({})"},
    {"gpt_bigcode", MaskRule::kCausal, RotaryForm::kNone, WindowRule::kNever, 0,
     R"({"multi_query":true,"num_key_value_heads":null,"scale_attn_weights":true})"},
    {"bloom", MaskRule::kCausal, RotaryForm::kNone, WindowRule::kNever, kAlibi, R"({})"},
    {"mpt", MaskRule::kCausal, RotaryForm::kNone, WindowRule::kNever, 0, R"({"attn_config":null})"},
    {"hunyuan_v1_dense hunyuan_v1_moe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, kNormAfterRotary,
     R"({"num_key_value_heads":null,"rms_norm_eps":1e-05,"rope_theta":10000.0})"},
    {"apertus", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":null,"rms_norm_eps":1e-05,"rope_scaling":"?","rope_theta":12000000.0})"},
    {"lfm2 lfm2_moe", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"norm_eps":1e-05,"num_key_value_heads":8,"rope_theta":1000000.0})"},
    {"mllama_text_model", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":500000.0})"},
    {"bert roberta camembert xlm-roberta xlm-roberta-xl roberta-prelayernorm electra ernie roc_bert data2vec-text "
     "bert-generation megatron-bert xmod",
     MaskRule::kDecoder, RotaryForm::kNone, WindowRule::kNever, 0, R"({"position_embedding_type":"absolute"})"},
    {"layoutlm markuplm splinter distilbert vit deit dinov2 dinov2_with_registers ijepa vit_mae vit_msn vivit yolos "
     "vitpose_backbone audio-spectrogram-transformer dpt videomae clip_vision_model siglip_text_model "
     "siglip_vision_model siglip2_text_model siglip2_vision_model clipseg_vision_model mllama_vision_model wav2vec2 "
     "hubert unispeech unispeech-sat data2vec-audio sew aimv2_vision_model altclip_vision_model "
     "chinese_clip_vision_model metaclip_2_vision_model git_vision_model groupvit_vision_model idefics2_vision "
     "idefics3_vision smolvlm_vision kosmos_2_vision_model owlvit_vision_model owlv2_vision_model eomt "
     "flava_image_model flava_multimodal_model blip_vision_model blip_2_vision_model instructblip_vision_model vilt "
     "visual_bert lxmert qwen2_audio_encoder audioflamingo3_encoder voxtral_encoder timesformer phi4_multimodal_vision "
     "granite_docling_vision tapas luke",
     MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0, R"({})"},
    {"albert align_text_model altclip_text_model chinese_clip_text_model clap_text_model flava_text_model",
     MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0, R"({"position_embedding_type":"absolute"})"},
    {"mpnet", MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0, R"({})",
     "its attention adds a relative position bias (relative_attention_bias of the encoder), which is not supported"},
    {"deberta deberta-v2", MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0, R"({})",
     "its attention is disentangled (relative positions take part in the scores), which is not supported"},
    {"qwen3_next qwen3_5_text qwen3_5_moe_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0, R"({})",
     "half of its q_proj is a gate on the heads' outputs, which is not supported"},
    {"qwen2_vl_vision qwen2_5_vl_vision qwen3_vl_vision qwen3_vl_moe_vision qwen3_5_vision qwen3_5_moe_vision "
     "glm4v_vision "
     "pixtral llama4_vision_model dinov3_vit",
     MaskRule::kNone, RotaryForm::kHalf, WindowRule::kNever, 0, R"({})",
     "its queries and keys are turned by row and column of a picture's patches, which is not supported"},
    {"modernbert", MaskRule::kNone, RotaryForm::kHalf, WindowRule::kModernBert, 0,
     R"({"global_attn_every_n_layers":3,"global_rope_theta":160000.0,"layer_types":null,"local_attention":128,"local_rope_theta":10000.0,"rope_theta":10000.0})"},
    {"eurobert", MaskRule::kNone, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":null,"rope_theta":10000.0})"},
    {"esm", MaskRule::kDecoder, RotaryForm::kHalf, WindowRule::kNever, kRotaryByType,
     R"({"position_embedding_type":"absolute","rope_theta":10000.0})"},
    {"roformer", MaskRule::kDecoder, RotaryForm::kInterleaved, WindowRule::kNever, kRotaryTable,
     R"({"rope_theta":10000.0,"rotary_value":false})"},
    {"beit data2vec-vision", MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0,
     R"({"use_relative_position_bias":false,"use_shared_relative_position_bias":false})"},
    {"wavlm", MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0, R"({})",
     "its attention adds a gated relative position bias, which is not supported"},
    {"longt5", MaskRule::kSeq2Seq, RotaryForm::kNone, WindowRule::kNever, 0, R"({})",
     "its encoder attends within blocks, which is not supported"},
    {"whisper bart mbart marian pegasus m2m_100 plbart blenderbot blenderbot-small speech_to_text nllb-moe",
     MaskRule::kSeq2Seq, RotaryForm::kNone, WindowRule::kNever, 0, R"({})"},
    {"t5 mt5 umt5 switch_transformers", MaskRule::kSeq2Seq, RotaryForm::kNone, WindowRule::kNever,
     kUnitScale | kRelativeBias, R"({})"},
    {"pop2piano", MaskRule::kSeq2Seq, RotaryForm::kNone, WindowRule::kNever, kUnitScale | kRelativeBias,
     R"({"num_heads":8})"},
    {"csm", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rope_theta":500000.0})"},
    {"csm_depth_decoder_model", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":2,"rope_theta":500000.0})"},
    {"hyperclovax", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"attention_multiplier":null,"num_key_value_heads":null,"rope_theta":10000.0})"},
    {"granite_docling_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"attention_multiplier":0.015625,"num_key_value_heads":4,"rope_theta":10000.0})"},
    {"cwm", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kByTypes, 0,
     R"({"layer_types":"?","num_key_value_heads":8,"rope_scaling":"?","rope_theta":1000000.0,"sliding_window":8192})"},
    {"hy_v3", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":11158840.0})"},
    {"qwen2_5_omni_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kLastLayers, 0,
     R"({"layer_types":null,"max_window_layers":28,"num_key_value_heads":4,"rope_theta":1000000.0,"sliding_window":32768,"use_sliding_window":false})"},
    {"qwen3_omni_moe_text", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0})"},
    {"minimax_m2", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_theta":5000000.0})"},
    {"janus_vision_model internvl_vision", MaskRule::kNone, RotaryForm::kNone, WindowRule::kNever, 0,
     R"({"use_qk_norm":false})"},
    {"rembert", MaskRule::kDecoder, RotaryForm::kNone, WindowRule::kNever, 0, R"({})"},
    {"nomic_bert", MaskRule::kNone, RotaryForm::kHalf, WindowRule::kNever, 0, R"({"rope_theta":1000.0})"},
    {"gpt_neox_japanese", MaskRule::kCausal, RotaryForm::kHalf, WindowRule::kNever, 0,
     R"({"rope_theta":10000.0,"rotary_pct":1.0})"},
};

constexpr CompositeRules kComposites[] = {
    {"aimv2", "aimv2_text_model", "aimv2_vision_model"},
    {"align", "align_text_model", "align_vision_model"},
    {"altclip", "altclip_text_model", "altclip_vision_model"},
    {"aria", "aria_text", "idefics3_vision"},
    {"aya_vision", "cohere2", "siglip_vision_model"},
    {"chinese_clip", "chinese_clip_text_model", "chinese_clip_vision_model"},
    {"clip", "clip_text_model", "clip_vision_model"},
    {"clipseg", "clipseg_text_model", "clipseg_vision_model"},
    {"cohere2_vision", "cohere2", "siglip_vision_model"},
    {"deepseek_vl", "llama", "siglip_vision_model"},
    {"emu3", "emu3_text_model", "emu3_vqgan"},
    {"flava", "flava_text_model", "flava_image_model"},
    {"fuyu", "persimmon", "fuyu_vision"},
    {"gemma3", "gemma3_text", "siglip_vision_model"},
    {"got_ocr2", "qwen2", "got_ocr2_vision"},
    {"granite4_vision", "granite4_vision_text", "siglip_vision_model"},
    {"granite_docling", "granite_docling_text", "granite_docling_vision"},
    {"groupvit", "groupvit_text_model", "groupvit_vision_model"},
    {"idefics2", "mistral", "idefics2_vision"},
    {"idefics3", "llama", "idefics3_vision"},
    {"internvl", "qwen2", "internvl_vision"},
    {"janus", "llama", "janus_vision_model"},
    {"kosmos-2", "kosmos_2_text_model", "kosmos_2_vision_model"},
    {"llava", "llama", "clip_vision_model"},
    {"llava_next", "llama", "clip_vision_model"},
    {"llava_next_video", "llama", "clip_vision_model"},
    {"llava_onevision", "qwen2", "siglip_vision_model"},
    {"metaclip_2", "metaclip_2_text_model", "metaclip_2_vision_model"},
    {"mistral3", "mistral", "pixtral"},
    {"mllama", "mllama_text_model", "mllama_vision_model"},
    {"ovis2", "qwen2", "ovis2_vision"},
    {"owlv2", "owlv2_text_model", "owlv2_vision_model"},
    {"owlvit", "owlvit_text_model", "owlvit_vision_model"},
    {"perception_lm", "llama", "perception_lm_vision"},
    {"qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_vl_vision"},
    {"qwen2_vl", "qwen2_vl_text", "qwen2_vl_vision"},
    {"qwen3_vl", "qwen3_vl_text", "qwen3_vl_vision"},
    {"qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_vl_moe_vision"},
    {"siglip", "siglip_text_model", "siglip_vision_model"},
    {"siglip2", "siglip2_text_model", "siglip2_vision_model"},
    {"smolvlm", "llama", "smolvlm_vision"},
    {"video_llava", "llama", "clip_vision_model"},
    {"vipllava", "llama", "clip_vision_model"},
};

}  // namespace

absl::Span<const ModelRules> AllModelRules() { return kRules; }

absl::Span<const CompositeRules> AllCompositeRules() { return kComposites; }

const ModelRules* FindModelRules(std::string_view model_type) {
  for (const ModelRules& rules : kRules) {
    const std::string types(rules.types);
    for (const absl::string_view type : absl::StrSplit(types, ' ')) {
      if (type == absl::string_view(model_type.data(), model_type.size())) return &rules;
    }
  }
  return nullptr;
}

const CompositeRules* FindCompositeRules(std::string_view model_type) {
  for (const CompositeRules& rules : kComposites) {
    if (rules.type == model_type) return &rules;
  }
  return nullptr;
}

}  // namespace attend::formats
