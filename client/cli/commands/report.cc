#include "client/cli/commands/report.h"

#include <iostream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cli/connection/connection_diagnosis.h"
#include "client/cli/requests/attention_flags.h"
#include "client/lib/layer_client.h"
#include "client/lib/server_error.h"
#include "formats/command_line/nearest.h"

namespace attend::client {
namespace {

constexpr int kMostNames = 1000;  // Of layers, among which the nearest is sought.

// What became of a call, in front of the server's own sentence.
const char* Outcome(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument: return "the server refuses the request";
    case absl::StatusCode::kNotFound: return "the server does not find it";
    case absl::StatusCode::kAlreadyExists: return "the server has it already";
    case absl::StatusCode::kAborted: return "the server has another version";
    case absl::StatusCode::kFailedPrecondition: return "the server cannot do this now";
    case absl::StatusCode::kResourceExhausted: return "the request is too large";
    case absl::StatusCode::kUnauthenticated: return "the server does not know who calls";
    case absl::StatusCode::kPermissionDenied: return "the server does not allow this";
    case absl::StatusCode::kUnavailable: return "the server is busy";
    case absl::StatusCode::kDeadlineExceeded: return "no result in time";
    case absl::StatusCode::kDataLoss: return "the bytes did not arrive as they were sent";
    case absl::StatusCode::kUnimplemented: return "the server does not know this request";
    default: return "the server failed";
  }
}

// What to say when no server answered and a look at the endpoints found nothing in the way.
std::string NoAnswer(const absl::Status& status, const ConnectionFlags& flags) {
  if (absl::StrContains(status.message(), "backend unhealthy"))
    return "all servers say NOT_SERVING, as those do that are about to end; try again";
  if (!absl::IsDeadlineExceeded(status))
    return absl::StrCat("the connection broke (", status.message(), "); try again");
  return absl::StrCat("no answer within ", flags.timeout, "; give more time with --timeout");
}

// What to do about an error with this reason; empty where its own sentence says it.
std::string Advice(const std::string& reason) {
  static constexpr std::pair<const char*, const char*> kAdvice[] = {
      {"ETAG_MISMATCH", "attend layers get NAME shows the present one"},
      {"NO_CREDENTIAL", "give a token with --token-file, or a certificate with --tls-cert and --tls-key"},
      {"BAD_CREDENTIAL", "give a token (--token-file) or certificate (--tls-cert) that the server's operator knows"},
      {"DEADLINE_TOO_SHORT", "give more time with --timeout"},
  };
  for (const auto& [known, advice] : kAdvice) {
    if (reason == known) return advice;
  }
  return "";
}

// The layer whose name is nearest to that which the server does not know, among those that this caller may list.
std::string NearestLayer(const std::string& name, const ConnectionFlags& flags) {
  const absl::StatusOr<Client> client = ConnectWith(flags);
  if (!client.ok()) return "";
  v1::ListLayersRequest request;
  request.set_page_size(kMostNames);
  const auto page = LayerClient(*client).List(request, CallOptions(absl::Seconds(1)));
  if (!page.ok()) return "";
  std::vector<std::string> names;
  for (const v1::Layer& layer : page->response.layers()) names.push_back(layer.name());
  return formats::Nearest(name, names);
}

// Where a layer's name is all that is wrong, the sentence that says so; else empty.
std::string AboutLayer(const ServerError& error, const ConnectionFlags& flags) {
  const auto name = error.metadata.find("layer_name");
  if (name == error.metadata.end()) return "";
  if (error.reason == "LAYER_EXISTS") {
    return absl::StrCat("the server has a layer '", name->second,
                        "' already; give --replace to put this one in its place");
  }
  if (error.reason != "LAYER_NOT_FOUND") return "";
  const std::string nearest = NearestLayer(name->second, flags);
  return absl::StrCat("the server has no layer '", name->second, "'; ",
                      nearest.empty() ? "attend layers list shows all, and weights in a file are FILE.safetensors"
                                      : absl::StrCat("did you mean ", nearest, "?"));
}

// What the server says, behind what became of the call: of one wrong field, the flag that sets it.
std::string ServersWord(const absl::Status& status, const ServerError& error) {
  const std::vector<FieldViolation>& fields = error.field_violations;
  if (fields.size() == 1 && !fields[0].field.empty() && fields[0].description == status.message()) {
    return absl::StrCat("the server refuses ", FlagOfField(fields[0].field), ": ", status.message());
  }
  std::string text = absl::StrCat(Outcome(status.code()), ": ", status.message());
  for (const FieldViolation& violation : fields) {
    // Without a field it is about the whole message, and the error's own sentence has said it.
    if (violation.field.empty()) continue;
    absl::StrAppend(&text, "\n  ", FlagOfField(violation.field), " (", violation.field, "): ", violation.description);
  }
  return text;
}

// The lines below it: facts, the reason where it is not the plain one, what to do.
void PrintDetails(const ServerError& error) {
  for (const auto& [name, value] : error.metadata) {
    if (name != "layer_name") std::cerr << "  " << name << ": " << value << "\n";
  }
  if (!error.reason.empty() && error.reason != "INVALID_FIELD") std::cerr << "  reason: " << error.reason << "\n";
  if (const std::string advice = Advice(error.reason); !advice.empty()) std::cerr << "  " << advice << "\n";
  if (error.retry_delay.has_value()) std::cerr << "  try again in " << absl::FormatDuration(*error.retry_delay) << "\n";
}

}  // namespace

ExitCode ReportUsage(const absl::Status& status) {
  std::cerr << "attend: " << status.message() << "\n";
  return kExitUsage;
}

ExitCode ReportConnect(const absl::Status& status) {
  ReportUsage(status);
  return absl::IsUnavailable(status) ? kExitNetwork : kExitUsage;
}

ExitCode ReportResult(const absl::Status& status) {
  ReportUsage(status);
  if (absl::IsInternal(status)) return kExitServer;
  return absl::IsUnknown(status) ? kExitLocal : kExitUsage;
}

ExitCode CodeOfCall(const absl::Status& status) {
  const bool may_be_network =
      absl::IsDeadlineExceeded(status) || absl::IsCancelled(status) || absl::IsUnavailable(status);
  return may_be_network && !AnsweredByServer(status) ? kExitNetwork : kExitServer;
}

ExitCode ReportCall(const absl::Status& status, const ConnectionFlags& flags) {
  if (CodeOfCall(status) == kExitNetwork) {
    const std::string cause = DiagnoseConnection(flags);
    std::cerr << "attend: " << (cause.empty() ? NoAnswer(status, flags) : cause) << "\n";
    return kExitNetwork;
  }
  const ServerError error = GetServerError(status);
  if (const std::string about = AboutLayer(error, flags); !about.empty()) {
    std::cerr << "attend: " << about << "\n";
    return kExitServer;
  }
  std::cerr << "attend: " << ServersWord(status, error) << "\n";
  PrintDetails(error);
  return kExitServer;
}

}  // namespace attend::client
