// Attend: bytes to job to bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/error.h"
#include "core/layer/attend_problem.h"
#include "core/layer/compute_attend.h"
#include "server/base/protocol.h"
#include "server/layers/layer.h"
#include "server/layers/layer_registry.h"
#include "server/requests/attention_job.h"
#include "server/requests/decoders.h"
#include "server/requests/layer_inputs.h"
#include "server/requests/length_list.h"
#include "server/requests/request_options.h"
#include "server/requests/tensor_codec.h"
#include "server/wire/request_reader.h"
#include "server/wire/response_buffer.h"

namespace attend::server {
namespace {

using Request = v1::AttendRequest;
using Response = v1::AttendResponse;

constexpr TensorRule kEmbeddingsRule = {
    "embeddings", {Request::kEmbeddingsFieldNumber}, TypeRule::kNumbers, {2, 3}, "[T, D] or [B, T, D]"};
constexpr TensorRule kContextRule = {
    "context", {Request::kContextFieldNumber}, TypeRule::kNumbers, {2, 3}, "[S, D'] or [B, S, D']"};

// A request whose tensors are checked.
struct AttendInputs {
  InputTensor embeddings;
  InputTensor context;
  LayerInputs layer;
  std::shared_ptr<const Layer> named_layer;                // In place of `layer`; or null.
  std::shared_ptr<const std::vector<double>> frequencies;  // In place of the named layer's; or null.
  std::int64_t position_offset = 0;
  LengthList position_offsets;
  OptionInputs options;

  const InputTensor& First() const { return embeddings; }
  std::string_view LayerEtag() const {
    return named_layer == nullptr ? std::string_view() : named_layer->description().etag();
  }
  InputTensors Tensors() {
    InputTensors tensors = {&embeddings, &context};
    options.AppendTensors(tensors);
    layer.AppendTensors(tensors);
    return tensors;
  }
  LengthLists Lists() {
    LengthLists lists = {&position_offsets};
    options.AppendLists(lists);
    return lists;
  }
  AttendProblem::Spec Spec() const;
  absl::Status CheckLists();
  absl::Status CheckWith(const OutputSet&) const { return absl::OkStatus(); }
};

// [T, D] or [B, T, D] as three axes.
EmbeddingsView View(const InputTensor& tensor) {
  if (!tensor) return {};
  return {tensor.elements(), tensor.rank() == 3 ? tensor.axis(0) : 1, tensor.axis(-2), tensor.axis(-1), tensor.type()};
}

AttendProblem::Spec AttendInputs::Spec() const {
  AttendProblem::Spec spec{.embeddings = View(embeddings),
                           .context = View(context),
                           .layer = layer.View(),
                           .position_offset = position_offset,
                           .position_offsets = position_offsets.View(),
                           .options = options.View()};
  if (named_layer != nullptr) {
    spec.layer = named_layer->view();
    if (frequencies != nullptr) spec.layer->rotary.frequencies = *frequencies;
    // What a request says goes before what its layer says.
    FillOptions(named_layer->options(), spec.options);
  }
  return spec;
}

absl::Status CheckTokens(const RawAttendRequest& raw, AttendInputs& inputs) {
  const InputTensor &embeddings = inputs.embeddings, &context = inputs.context;
  if (absl::Status s = CheckTensorInto(raw.embeddings, kEmbeddingsRule, inputs.embeddings); !s.ok()) return s;
  if (absl::Status s = CheckTensorInto(raw.context, kContextRule, inputs.context); !s.ok()) return s;
  if (!embeddings || !context || context.rank() == embeddings.rank()) return absl::OkStatus();
  return InvalidField("context.shape",
                      absl::StrCat("context.shape has ", context.rank(), " axes, but embeddings.shape has ",
                                   embeddings.rank(), "; they must have as many"));
}

// REQUIRES: `text` is known to be short.
std::string TextOf(const RawText& text, const WireBytes& bytes) {
  std::string copy(static_cast<std::size_t>(text.size()), '\0');
  bytes.Copy(text, copy.data());
  return copy;
}

// A request may name the version of the layer that it wants.
absl::Status CheckLayerEtag(const RawText& wanted, const WireBytes& bytes, const Layer& layer) {
  const std::string& etag = layer.description().etag();
  const bool same_size = wanted.size() == static_cast<std::int64_t>(etag.size());
  if (wanted.empty() || (same_size && TextOf(wanted, bytes) == etag)) return absl::OkStatus();
  const std::string& name = layer.description().name();
  return WithDetails(
      absl::AbortedError(
          absl::StrCat("the layer '", name, "' has the etag '", etag,
                       "', which is not the request's layer_etag; results of both versions do not belong "
                       "together")),
      {.reason = reason::kEtagMismatch, .field = "", .metadata = {{"layer_name", name}, {"etag", etag}}});
}

absl::Status FindNamedLayer(const RawAttendRequest& raw, const WireBytes& bytes, const LayerRegistry* layers,
                            std::string_view tenant, AttendInputs& inputs) {
  constexpr char kField[] = "layer_name";
  if (raw.layer_name.empty()) {
    if (raw.layer_etag.empty()) return absl::OkStatus();
    return InvalidField(
        "layer_etag", "layer_etag is given, but there is no layer_name; it says which version of a named layer to use");
  }
  if (raw.layer.present) {
    return InvalidField(kField,
                        "layer_name and layer are both set; a request has one layer, by name or by its weights");
  }
  const auto name_bytes = static_cast<std::size_t>(raw.layer_name.size());
  if (absl::Status status = CheckLayerNameLength(name_bytes, kField); !status.ok()) return status;
  const std::string name = TextOf(raw.layer_name, bytes);
  if (absl::Status status = CheckLayerName(name, kField); !status.ok()) return status;
  if (layers != nullptr) inputs.named_layer = layers->Resolve(tenant, name);
  if (inputs.named_layer == nullptr) return LayerNotFound(name, kField);
  return CheckLayerEtag(raw.layer_etag, bytes, *inputs.named_layer);
}

// The weights of a named layer are not in the request: what does not fit them is the request's tensor.
absl::Status CheckFits(const InputTensor& tensor, const char* field, std::int64_t features, const std::string& name,
                       bool layer_is_double) {
  if (tensor.axis(-1) != features) {
    const std::string shape = absl::StrCat(field, ".shape");
    return InvalidField(shape, absl::StrCat("layer '", name, "' takes ", features, " features, but ", shape,
                                            " ends in ", tensor.axis(-1), "; send tokens of ", features, " features"));
  }
  if ((tensor.type() == DataType::kFloat64) == layer_is_double) return absl::OkStatus();
  const std::string type = absl::StrCat(field, ".data_type");
  return InvalidField(
      type, absl::StrCat("layer '", name, "' has ", layer_is_double ? "FLOAT64" : "FLOAT32 or 16-bit", " weights, but ",
                         type, " is ", std::string(DataTypeName(tensor.type())),
                         "; FLOAT64 does not mix with other types: send ", layer_is_double ? "FLOAT64" : "FLOAT32"));
}

absl::Status CheckNamedLayer(const AttendInputs& inputs) {
  if (inputs.named_layer == nullptr || !inputs.embeddings) return absl::OkStatus();
  const LayerView& view = inputs.named_layer->view();
  const std::string& name = inputs.named_layer->description().name();
  const bool is_double = view.query.weight_type == DataType::kFloat64;
  absl::Status fits = CheckFits(inputs.embeddings, "embeddings", view.query.in_features, name, is_double);
  const bool crosses = static_cast<bool>(inputs.context);
  fits.Update(CheckFits(crosses ? inputs.context : inputs.embeddings, crosses ? "context" : "embeddings",
                        view.key.in_features, name, is_double));
  return fits;
}

absl::Status CheckPositionOffset(const RawAttendRequest& raw, AttendInputs& inputs) {
  constexpr char kField[] = "position_offset";
  const std::int64_t offset = raw.position_offset;
  // A named layer without rotary embeddings ignores it, so that callers need not know which layers of a model have
  // them.
  if (offset != 0 && inputs.named_layer == nullptr) {
    return InvalidField(kField, absl::StrCat(kField, " is ", offset,
                                             ", but there is no layer_name; it is for the rotary embeddings of named "
                                             "layers alone"));
  }
  inputs.position_offset = offset;
  return absl::OkStatus();
}

bool HasCumulativeLengths(const RawOptions& raw) {
  for (std::size_t i = 0; i < std::size(kLengthsOptions); ++i) {
    if (kLengthsOptions[i].cumulative && raw.lengths[i].count != 0) return true;
  }
  return false;
}

// As many as there are batch entries will be copied; AttendProblem::Create refuses another number.
absl::Status CheckPositionOffsets(const RawAttendRequest& raw, AttendInputs& inputs) {
  constexpr char kField[] = "position_offsets";
  const std::int64_t count = raw.position_offsets.count;
  if (count == 0) return absl::OkStatus();
  if (inputs.named_layer == nullptr) {
    return InvalidField(kField, absl::StrCat(kField,
                                             " are given, but there is no layer_name; they are for the rotary "
                                             "embeddings of named layers alone"));
  }
  if (HasCumulativeLengths(raw.options)) {
    return InvalidField(kField, absl::StrCat(kField,
                                             " go without cumulative lengths; send the sequences as a batch "
                                             "[B, T, D], or ragged with one position_offset for all"));
  }
  inputs.position_offsets = {
      {v1::AttendRequest::kPositionOffsetsFieldNumber}, count, count == View(inputs.embeddings).batch};
  return absl::OkStatus();
}

// An offset that AttendProblem::Create will refuse counts as 0.
std::int64_t ValidOrZero(std::int64_t offset) { return offset >= 0 && offset <= kMaxPositionOffset ? offset : 0; }

// The tokens of sequence `n` of a ragged batch, as far as the offsets make sense: AttendProblem::Create checks them. 0
// behind the last.
std::int64_t SequenceLength(absl::Span<const std::int64_t> offsets, std::size_t n) {
  if (n + 1 >= offsets.size()) return 0;
  const bool makes_sense = offsets[n] >= 0 && offsets[n] <= offsets[n + 1] && offsets[n + 1] <= kMaxPositionOffset;
  return makes_sense ? offsets[n + 1] - offsets[n] : 0;
}

// The shortest and the longest text of a batch, positions before its tokens included.
struct TextLengths {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  std::int64_t most = 0;

  void Add(std::int64_t length) {
    least = std::min(least, length);
    most = std::max(most, length);
  }
};

// REQUIRES: the lists are copied.
TextLengths TextLengthsOf(const AttendInputs& inputs) {
  const AttentionOptions given = inputs.options.View();
  const auto &queries = given.cumulative_query_lengths, &keys = given.cumulative_key_lengths;
  const std::int64_t before = ValidOrZero(inputs.position_offset);
  const std::int64_t tokens = std::max(View(inputs.embeddings).length, View(inputs.context).length);
  TextLengths texts;
  for (std::size_t n = 0; n + 1 < queries.size(); ++n) {
    texts.Add(before + std::max(SequenceLength(queries, n), SequenceLength(keys, n)));
  }
  for (const std::int64_t offset : inputs.position_offsets.numbers()) texts.Add(before + tokens + ValidOrZero(offset));
  if (queries.size() < 2 && inputs.position_offsets.numbers().empty()) texts.Add(before + tokens);
  return texts;
}

// Rotary embeddings that depend on the length of the text. Sequences of a batch share one.
absl::Status AttendInputs::CheckLists() {
  const std::int64_t short_length = named_layer == nullptr ? 0 : named_layer->short_context_length();
  if (short_length == 0) return absl::OkStatus();
  const TextLengths texts = TextLengthsOf(*this);
  if (texts.most <= short_length) return absl::OkStatus();
  if (texts.least != texts.most) {
    const char* const field = position_offsets.count() > 0 ? "position_offsets" : "options.cumulative_query_lengths";
    return InvalidField(field, absl::StrCat(field, " gives texts of different lengths, and beyond ", short_length,
                                            " tokens the layer's rotary embedding depends on the length of the text; "
                                            "send the sequences in requests of their own"));
  }
  frequencies = named_layer->FrequenciesFor(texts.most);
  return absl::OkStatus();
}

absl::Status CheckInputs(const RawAttendRequest& raw, const WireBytes& bytes, const LayerRegistry* layers,
                         std::string_view tenant, AttendInputs& inputs) {
  if (absl::Status status = CheckTokens(raw, inputs); !status.ok()) return status;
  if (absl::Status status = CheckLayer(raw.layer, inputs.layer); !status.ok()) return status;
  if (absl::Status status = FindNamedLayer(raw, bytes, layers, tenant, inputs); !status.ok()) return status;
  if (absl::Status status = CheckNamedLayer(inputs); !status.ok()) return status;
  if (absl::Status status = CheckPositionOffset(raw, inputs); !status.ok()) return status;
  if (absl::Status status = CheckPositionOffsets(raw, inputs); !status.ok()) return status;
  const EmbeddingsView first = View(inputs.embeddings);
  const FirstTensor tokens{first.batch, first.length, first.type == DataType::kFloat64};
  return CheckOptions(raw.options, tokens, inputs.options);
}

// What computing needs besides the problem.
struct AttendExtras {
  WeightsForm weights;
  std::shared_ptr<const Layer> layer;                      // The problem views it.
  std::shared_ptr<const std::vector<double>> frequencies;  // Likewise.
  LengthList position_offsets;                             // Likewise.
};

struct AttendMethod {
  using Raw = RawAttendRequest;
  using Inputs = AttendInputs;
  using Problem = AttendProblem;
  using Extras = AttendExtras;

  static constexpr v1::OutputKind kOutputs[] = {v1::OUTPUT_KIND_OUTPUT,      v1::OUTPUT_KIND_ATTENTION_WEIGHTS,
                                                v1::OUTPUT_KIND_LOG_SUM_EXP, v1::OUTPUT_KIND_QUERY,
                                                v1::OUTPUT_KIND_KEY,         v1::OUTPUT_KIND_VALUE,
                                                v1::OUTPUT_KIND_SCORES,      v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS};

  const LayerRegistry* layers;  // Or null.
  Receipts receipts;

  static FastKernels UsedKernels(const Problem& problem, FastKernels available) {
    return FastKernelsOf(problem, available);
  }
  static absl::Status Read(const WireBytes& bytes, Raw& raw) { return ReadAttendRequest(bytes, raw); }
  absl::Status Check(const Raw& raw, const WireBytes& bytes, std::string_view tenant, Inputs& inputs) const {
    return CheckInputs(raw, bytes, layers, tenant, inputs);
  }
  static Extras MakeExtras(Inputs& inputs) {
    return {inputs.options.weights, inputs.named_layer, inputs.frequencies, std::move(inputs.position_offsets)};
  }
  static double ExtraBytes(const Problem&, const Inputs&) { return 0; }

  static void AddTensors(const Problem& problem, const Inputs& inputs, const OutputSet& outputs,
                         ResponseBuffer& response) {
    // `axes` behind the batch axis, if the embeddings had one.
    const auto add = [&](v1::OutputKind kind, int field_number, v1::DataType type, Axes axes) {
      if (!outputs.Has(kind)) return;
      if (inputs.embeddings.rank() == 3) axes.insert(axes.begin(), problem.batch());
      response.AddTensor(field_number, type, axes);
    };
    const v1::DataType own = ToWire(inputs.embeddings.type());
    const v1::DataType arithmetic = problem.is_double() ? v1::DATA_TYPE_FLOAT64 : v1::DATA_TYPE_FLOAT32;
    const std::int64_t heads = problem.num_heads(), kv_heads = problem.num_kv_heads();
    const std::int64_t queries = problem.query_length(), keys = problem.key_length();
    const WeightsForm& form = inputs.options.weights;
    const auto rows = [&](bool per_head, std::int64_t columns) {
      return per_head ? Axes{heads, queries, columns} : Axes{queries, columns};
    };
    add(v1::OUTPUT_KIND_OUTPUT, Response::kOutputFieldNumber, own, {queries, problem.output_dim()});
    add(v1::OUTPUT_KIND_ATTENTION_WEIGHTS, Response::kAttentionWeightsFieldNumber, arithmetic,
        rows(form.per_head, problem.score_columns()));
    add(v1::OUTPUT_KIND_LOG_SUM_EXP, Response::kLogSumExpFieldNumber, v1::DATA_TYPE_FLOAT32, {heads, queries});
    add(v1::OUTPUT_KIND_QUERY, Response::kQueryFieldNumber, own, {heads, queries, problem.head_dim()});
    add(v1::OUTPUT_KIND_KEY, Response::kKeyFieldNumber, own, {kv_heads, keys, problem.head_dim()});
    add(v1::OUTPUT_KIND_VALUE, Response::kValueFieldNumber, own, {kv_heads, keys, problem.value_dim()});
    add(v1::OUTPUT_KIND_SCORES, Response::kScoresFieldNumber, arithmetic, rows(true, problem.score_columns()));
    add(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS, Response::kTopAttentionWeightsFieldNumber, arithmetic,
        rows(form.per_head, form.top_k));
    add(v1::OUTPUT_KIND_TOP_ATTENTION_WEIGHTS, Response::kTopAttentionIndicesFieldNumber, v1::DATA_TYPE_INT32,
        rows(form.per_head, form.top_k));
  }

  static absl::Status Compute(const Problem& problem, const Extras& extras, const ResponseBuffer& response,
                              const ComputeContext& context) {
    AttendOutputs out;
    out.output = response.Elements(Response::kOutputFieldNumber);
    out.query = response.Elements(Response::kQueryFieldNumber);
    out.key = response.Elements(Response::kKeyFieldNumber);
    out.value = response.Elements(Response::kValueFieldNumber);
    out.log_sum_exp = response.Floats(Response::kLogSumExpFieldNumber);
    const RowOutputs<Response> rows(problem, extras.weights, response);
    out.scores = rows.Scores();
    out.attention_weights = rows.PerHeadWeights();
    out.averaged_weights = rows.AveragedWeights();
    out.top_weights = rows.Top();
    return ComputeAttend(problem, out, context);
  }
};

}  // namespace

Decoder AttendDecoder(const LayerRegistry* layers, const KernelChoice& kernels) {
  return AttentionJob<AttendMethod>::MakeDecoder({layers, Receipts(kernels)});
}

Estimator AttendEstimator(const LayerRegistry* layers, const KernelChoice& kernels) {
  return AttentionJob<AttendMethod>::MakeEstimator({layers, Receipts(kernels)});
}

}  // namespace attend::server
