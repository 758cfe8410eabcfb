#include "client/cli/requests/request_builder.h"

#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/layers/layer_file.h"
#include "client/cli/requests/tensor_source.h"
#include "client/lib/tensor.h"

namespace attend::client {
namespace {

// Loads the tensor that `source` names into a message.
absl::Status Place(const std::string& source, const AttentionFlags& flags, v1::Tensor* message) {
  const std::optional<ElementType> type = GivenType(flags);
  absl::StatusOr<Tensor> tensor = type.has_value() ? LoadTensor(source) : LoadFloats(source, /*allow_float64=*/true);
  if (!tensor.ok()) return tensor.status();
  const ElementType sent_as = type.value_or(tensor->type());
  return (*std::move(tensor)).ToFloat(sent_as).MoveTo(message);
}

bool IsDouble(const v1::Tensor& message) { return message.data_type() == v1::DATA_TYPE_FLOAT64; }

absl::Status Convert(v1::Tensor* message, ElementType type) {
  absl::StatusOr<Tensor> tensor = Tensor::FromProto(std::move(*message));
  return tensor.ok() ? (*std::move(tensor)).ToFloat(type).MoveTo(message) : tensor.status();
}

// Makes a tensor float64 for float64 arithmetic, and anything but that for the other.
absl::Status SetPrecision(v1::Tensor* message, bool is_double) {
  if (IsDouble(*message) == is_double) return absl::OkStatus();
  return Convert(message, is_double ? ElementType::kFloat64 : ElementType::kFloat32);
}

absl::Status PlaceOptions(const AttentionFlags& flags, bool is_double, v1::AttentionOptions* message) {
  absl::StatusOr<v1::AttentionOptions> options = BuildOptions(flags, is_double);
  if (!options.ok()) return options.status();
  *message = *std::move(options);
  return absl::OkStatus();
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
    if (type.has_value()) status.Update(Convert(tensor, *type));
    narrowed = narrowed || (IsDouble(*tensor) && !is_double);
    status.Update(SetPrecision(tensor, is_double));
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

}  // namespace

std::string NamedLayer(const ComputeFlags& flags) {
  std::error_code error;
  const bool is_file = TensorSource::Parse(flags.layer).is_safetensors() || std::filesystem::exists(flags.layer, error);
  return flags.layer_name.empty() && !is_file ? flags.layer : flags.layer_name;
}

absl::Status AttendRequestBuilder::PlaceNamedLayer(const std::string& name) {
  if (flags_.num_heads.has_value() || flags_.num_kv_heads.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("--num-heads and --num-kv-heads belong to weights from a file; '",
                                                   name, "' has its heads in the server"));
  }
  request_->set_layer_name(name);
  request_->set_position_offset(flags_.position_offset.value_or(0));
  return absl::OkStatus();
}

absl::Status AttendRequestBuilder::PlaceLayer(bool is_double) {
  if (const std::string name = NamedLayer(flags_); !name.empty()) return PlaceNamedLayer(name);
  if (flags_.position_offset.has_value()) {
    return absl::InvalidArgumentError("--position-offset belongs to a layer that is called by name, see --layer-name");
  }
  if (flags_.layer.empty()) {
    if (!flags_.num_heads.has_value() && !flags_.num_kv_heads.has_value()) return absl::OkStatus();
    return absl::InvalidArgumentError("--num-heads and --num-kv-heads belong to a --layer");
  }
  v1::LayerConfig said;
  if (flags_.num_heads.has_value()) said.set_num_heads(*flags_.num_heads);
  if (flags_.num_kv_heads.has_value()) said.set_num_kv_heads(*flags_.num_kv_heads);
  absl::StatusOr<InlineLayer> layer = LoadInlineLayer(flags_.layer, said);
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
  status.Update(SetPrecision(request_->mutable_embeddings(), is_double));
  // A context that was not float64 at first can go there and back without loss.
  if (request_->has_context()) status.Update(SetPrecision(request_->mutable_context(), is_double));
  if (is_double_ == is_double || !status.ok()) return status;
  is_double_ = is_double;
  if (status = PlaceLayer(is_double); !status.ok()) return status;
  status = PlaceOptions(flags_.attention, is_double, request_->mutable_options());
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
  for (const auto& [source, message] : inputs) status.Update(SetPrecision(message, is_double));
  if (!flags.partials.empty()) status.Update(PlacePartials(flags.partials, request->mutable_partials()));
  if (!status.ok()) return status;
  return PlaceOptions(flags.attention, is_double, request->mutable_options());
}

}  // namespace attend::client
