#include "client/cli/requests/request_builder.h"

#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/requests/tensor_source.h"
#include "client/io/layer_file.h"
#include "client/lib/tensor.h"

namespace attend::client {
namespace {

// Loads the tensor that `source` names into a message.
absl::Status Place(const std::string& source, const AttentionFlags& flags, v1::Tensor* message) {
  const std::optional<ElementType> type = GivenType(flags);
  absl::StatusOr<Tensor> tensor = type.has_value() ? LoadNumbers(source) : LoadFloats(source, /*allow_float64=*/true);
  if (!tensor.ok()) return tensor.status();
  const ElementType sent_as = type.value_or(tensor->type());
  absl::StatusOr<Tensor> converted = Convert(*std::move(tensor), sent_as, source);
  return converted.ok() ? (*std::move(converted)).MoveTo(message) : converted.status();
}

bool IsDouble(const v1::Tensor& message) { return message.data_type() == v1::DATA_TYPE_FLOAT64; }

// Converts a message in place; `source` says where it is from.
absl::Status ConvertMessage(v1::Tensor* message, ElementType type, const std::string& source) {
  absl::StatusOr<Tensor> tensor = Tensor::FromProto(std::move(*message));
  if (tensor.ok()) tensor = Convert(*std::move(tensor), type, source);
  return tensor.ok() ? (*std::move(tensor)).MoveTo(message) : tensor.status();
}

// Makes a tensor float64 for float64 arithmetic, and anything but that for the other.
absl::Status SetPrecision(v1::Tensor* message, bool is_double, const std::string& source) {
  if (IsDouble(*message) == is_double) return absl::OkStatus();
  return ConvertMessage(message, is_double ? ElementType::kFloat64 : ElementType::kFloat32, source);
}

// The weights and biases that `layer` has.
std::vector<v1::Tensor*> TensorsOf(v1::AttentionLayer* layer) {
  std::vector<v1::Linear*> linears = {layer->mutable_query_projection(), layer->mutable_key_projection(),
                                      layer->mutable_value_projection()};
  if (layer->has_output_projection()) linears.push_back(layer->mutable_output_projection());
  std::vector<v1::Tensor*> tensors;
  for (v1::Linear* linear : linears) {
    tensors.push_back(linear->mutable_weight());
    if (linear->has_bias()) tensors.push_back(linear->mutable_bias());
  }
  return tensors;
}

// Converts a layer as --dtype says, and then to the arithmetic's precision.
absl::Status ConvertLayer(const ComputeFlags& flags, bool is_double, v1::AttentionLayer* layer) {
  const std::optional<ElementType> type = GivenType(flags.attention);
  bool narrowed = false;
  absl::Status status;
  for (v1::Tensor* tensor : TensorsOf(layer)) {
    if (type.has_value()) status.Update(ConvertMessage(tensor, *type, flags.layer));
    if (!status.ok()) return status;
    narrowed = narrowed || (IsDouble(*tensor) && !is_double);
    status.Update(SetPrecision(tensor, is_double, flags.layer));
  }
  if (narrowed) {
    std::cerr << "attend: note: " << flags.layer
              << " has float64 weights, sent as float32 as the input is not float64\n";
  }
  return status;
}

// Appends the tensor `name` of the part at `path` to `stack` along a leading axis.
absl::Status Stack(const std::string& path, const std::string& name, v1::Tensor* stack) {
  absl::StatusOr<Tensor> part = LoadFloats(absl::StrCat(path, ":", name), /*allow_float64=*/false);
  if (!part.ok()) return part.status();
  const std::vector<std::int64_t> shape = part->shape();
  if (stack->shape_size() == 0) {
    stack->set_data_type(v1::DATA_TYPE_FLOAT32);
    stack->add_shape(0);
    stack->mutable_shape()->Add(shape.begin(), shape.end());
  }
  const absl::Span<const std::int64_t> first(stack->shape().data() + 1, stack->shape_size() - 1);
  if (first != absl::MakeConstSpan(shape)) {
    return absl::InvalidArgumentError(absl::StrCat("--partial ", path, ": ", name, " has shape ", ShapeString(shape),
                                                   ", but the first part's has ", ShapeString(first),
                                                   "; all parts must be results of the same queries"));
  }
  stack->set_shape(0, stack->shape(0) + 1);
  stack->mutable_data()->append((*std::move(part)).ToFloat32().bytes());
  return absl::OkStatus();
}

absl::Status PlacePartials(const std::vector<std::string>& paths, v1::PartialAttention* partials) {
  for (const std::string& path : paths) {
    const TensorSource source = TensorSource::Parse(path);
    if (!source.is_safetensors() || !source.name.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--partial ", path, ": expected a .safetensors file"));
    }
    absl::Status status = Stack(path, "output", partials->mutable_output());
    status.Update(Stack(path, "log_sum_exp", partials->mutable_log_sum_exp()));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The layer that is called by its name: --layer-name, or a --layer that is no file. Empty: there is none.
std::string NamedLayer(const ComputeFlags& flags) {
  std::error_code error;
  const bool is_file =
      TensorSource::Parse(flags.layer).is_safetensors() || std::filesystem::is_regular_file(flags.layer, error);
  return flags.layer_name.empty() && !is_file ? flags.layer : flags.layer_name;
}

constexpr FlagInfo kRequestFields[] = {
    {"position_offset", "", "Position of the first token, for a named layer with rotary embeddings (default: 0)"},
    {"position_offsets", "", "The same for each sequence of a batch, as in 7,19 or a file of integers"},
    {"layer_etag", "", "Refuse unless the named layer has this etag, as `attend layers get` shows it"},
    {"layout", "", "Which axis of query, key, value and output is the heads': bhte [B, H, T, E] or bthe [B, T, H, E]"},
};

}  // namespace

void AddComputeFlags(CLI::App* command, ComputeFlags* flags) {
  command
      ->add_option("--input", flags->inputs,
                   "Embeddings [T, D] or [B, T, D]: FILE.npy, FILE.safetensors:TENSOR or - for stdin. May be repeated")
      ->required()
      ->allow_extra_args(false);
  command->add_option("--context", flags->context, "Tokens to look at, for cross-attention (default: the input)");
  CLI::Option* layer = command->add_option(
      "--layer", flags->layer,
      "Weights: FILE.safetensors[:PREFIX] in any naming that `attend layers upload` takes, with the config.json beside "
      "it; or the name of a layer in the server, see `attend layers`");
  command->add_option("--layer-name", flags->layer_name, "The name of a layer in the server, whatever it looks like")
      ->excludes(layer);
  AddHeadFlags(command, &flags->heads);
  flags->request.Declare(command, *v1::AttendRequest::descriptor(), kRequestFields,
                         {"embeddings", "context", "layer", "options", "outputs", "layer_name"});
  AddAttentionFlags(command, &flags->attention);
}

void AddSdpaFlags(CLI::App* command, SdpaFlags* flags) {
  command->add_option("--query", flags->query, "[T, E], [H, T, E] or [B, H, T, E], as a file")->required();
  command->add_option("--key", flags->key, "[S, E], [K, S, E] or [B, K, S, E], as a file")->required();
  command->add_option("--value", flags->value, "[S, V], [K, S, V] or [B, K, S, V], as a file")->required();
  command
      ->add_option("--partial", flags->partials,
                   "Merge with the same queries' result over other keys: FILE.safetensors with `output` and "
                   "`log_sum_exp`, as --return output,log_sum_exp --output FILE.safetensors wrote it. May be repeated")
      ->allow_extra_args(false);
  flags->request.Declare(command, *v1::ScaledDotProductAttentionRequest::descriptor(), kRequestFields,
                         {"query", "key", "value", "options", "outputs", "partials"});
  AddAttentionFlags(command, &flags->attention);
}

absl::Status AttendRequestBuilder::PlaceLayer(bool is_double) {
  const bool has_heads = flags_.heads.num_heads() != 0 || flags_.heads.num_kv_heads() != 0;
  if (const std::string name = NamedLayer(flags_); !name.empty()) {
    request_->set_layer_name(name);
    if (!has_heads) return flags_.request.Fill(is_double, request_);
    return absl::InvalidArgumentError(absl::StrCat("--num-heads and --num-kv-heads belong to weights from a file; '",
                                                   name, "' has its heads in the server"));
  }
  if (const std::string flag = flags_.request.FirstGiven(); !flag.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " belongs to a layer that is called by name, see --layer-name"));
  }
  if (flags_.layer.empty()) {
    if (!has_heads) return absl::OkStatus();
    return absl::InvalidArgumentError("--num-heads and --num-kv-heads belong to a --layer");
  }
  const TensorSource source = TensorSource::Parse(flags_.layer);
  if (!source.is_safetensors()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--layer ", flags_.layer, ": this file is no .safetensors; a layer in the server is called with --layer-name"));
  }
  absl::StatusOr<InlineLayer> layer = LoadInlineLayer(source.path, source.name, flags_.heads);
  if (!layer.ok()) return layer.status();
  if (absl::Status status = ConvertLayer(flags_, is_double, &layer->layer); !status.ok()) return status;
  *request_->mutable_layer() = std::move(layer->layer);
  layer_options_ = std::move(layer->options);
  return absl::OkStatus();
}

absl::Status AttendRequestBuilder::Prepare(std::size_t index) {
  absl::Status status = Place(flags_.inputs[index], flags_.attention, request_->mutable_embeddings());
  if (!flags_.context.empty() && !request_->has_context()) {
    status.Update(Place(flags_.context, flags_.attention, request_->mutable_context()));
    has_double_context_ = IsDouble(request_->context());
  }
  if (!status.ok()) return status;
  const bool is_double = has_double_context_ || IsDouble(request_->embeddings());
  status.Update(SetPrecision(request_->mutable_embeddings(), is_double, flags_.inputs[index]));
  // A context that was not float64 at first can go there and back without loss.
  if (request_->has_context()) {
    status.Update(SetPrecision(request_->mutable_context(), is_double, flags_.context));
  }
  if (is_double_ == is_double || !status.ok()) return status;
  is_double_ = is_double;
  if (status = PlaceLayer(is_double); !status.ok()) return status;
  request_->clear_options();
  status = flags_.attention.options.Fill(is_double, request_->mutable_options());
  FillOptions(layer_options_, request_->mutable_options());
  return status;
}

absl::Status BuildSdpaRequest(const SdpaFlags& flags, v1::ScaledDotProductAttentionRequest* request) {
  const std::vector<std::pair<const std::string&, v1::Tensor*>> inputs = {{flags.query, request->mutable_query()},
                                                                          {flags.key, request->mutable_key()},
                                                                          {flags.value, request->mutable_value()}};
  bool is_double = false;
  for (const auto& [source, message] : inputs) {
    if (absl::Status status = Place(source, flags.attention, message); !status.ok()) return status;
    is_double = is_double || IsDouble(*message);
  }
  absl::Status status;
  for (const auto& [source, message] : inputs) status.Update(SetPrecision(message, is_double, source));
  if (!flags.partials.empty()) status.Update(PlacePartials(flags.partials, request->mutable_partials()));
  status.Update(flags.request.Fill(is_double, request));
  status.Update(flags.attention.options.Fill(is_double, request->mutable_options()));
  return status;
}

}  // namespace attend::client
