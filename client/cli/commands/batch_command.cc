// `attend batch`: requests as lines of JSON, an answer for each.

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/commands/commands.h"
#include "client/cli/requests/request_line.h"
#include "client/cli/results/output_format.h"
#include "client/io/stream.h"
#include "client/lib/server_error.h"
#include "client/text/message_json.h"
#include "formats/files/json_text.h"

namespace attend::client {
namespace {

// What a failed request is answered with.
Json ErrorJson(const absl::Status& status) {
  const ServerError details = GetServerError(status);
  Json error = {{"code", absl::StatusCodeToString(status.code())}, {"message", std::string(status.message())}};
  if (!details.reason.empty()) error["reason"] = details.reason;
  for (const FieldViolation& violation : details.field_violations) {
    error["fields"].push_back({{"field", violation.field}, {"description", violation.description}});
  }
  if (details.retry_delay.has_value()) {
    error["retry_after_ms"] = JsonNumber(static_cast<float>(absl::ToDoubleMilliseconds(*details.retry_delay)));
  }
  return error;
}

// Where requests come from, and who answers them.
struct Batch {
  std::istream& in;
  const std::string name;  // Of `in`, for people.
  const bool is_stdin;
  const ConnectionFlags& connection;
};

// Whether `path` is what standard input is, as /dev/stdin.
bool IsStdin(const std::string& path) {
  struct stat file {
  }, standard{};  // std::filesystem::equivalent compares no pipes.
  return stat(path.c_str(), &file) == 0 && fstat(STDIN_FILENO, &standard) == 0 && file.st_dev == standard.st_dev &&
         file.st_ino == standard.st_ino;
}

// Answers one line. `*failure` becomes the exit code of a failure and stays otherwise.
Json Answer(const Batch& batch, const Client& client, const CallOptions& call, const std::string& text,
            ExitCode* failure) {
  Json answer = Json::object();
  const absl::StatusOr<nlohmann::json> line = formats::ParseJsonObject(text);
  if (line.ok() && line->contains("id")) answer["id"] = (*line)["id"];
  const absl::StatusOr<ComputationRequest> request =
      line.ok() ? ParseRequestLine(*line, batch.is_stdin) : line.status();
  absl::StatusOr<Outcome> outcome = request.ok() ? Send(client, *request, call) : request.status();
  if (outcome.ok()) {
    answer.update(OutcomeJson(outcome->tensors, *outcome));
  } else {
    answer["error"] = ErrorJson(outcome.status());
    *failure = request.ok() ? CodeOfCall(outcome.status()) : kExitUsage;
  }
  return answer;
}

// The exit code when no line follows the first `number`, which had the code `result`.
ExitCode AtEnd(const Batch& batch, std::int64_t number, ExitCode result) {
  if (!ReadFailed(batch.in)) return result;
  const ExitCode failed = ReportUsage(absl::DataLossError(
      absl::StrCat("reading ", batch.name, " failed after line ", number, "; what follows was not sent")));
  return result == kExitOk ? failed : result;
}

ExitCode RunBatch(const Batch& batch) {
  const absl::StatusOr<Client> client = ConnectWith(batch.connection);
  if (!client.ok()) return ReportConnect(client.status());
  const CallOptions call(*ParseTimeout(batch.connection.timeout));
  ExitCode result = kExitOk;
  std::int64_t number = 0, requests = 0, failures = 0;
  // Where reading failed, the text may be a part of a line.
  for (std::string text; std::getline(batch.in, text) && !ReadFailed(batch.in);) {
    ++number;
    if (absl::StripAsciiWhitespace(text).empty()) continue;
    ++requests;
    ExitCode failure = kExitOk;
    Json answer = {{"line", number}};
    answer.update(Answer(batch, *client, call, text, &failure));
    std::cout << FormatLine(answer) << std::flush;
    if (!std::cout.good()) return ReportResult(absl::UnknownError("cannot write to standard output"));
    failures += failure == kExitOk ? 0 : 1;
    if (result == kExitOk) result = failure;
  }
  if (failures > 0) std::cerr << "attend: " << failures << " of " << requests << " requests failed\n";
  return AtEnd(batch, number, result);
}

}  // namespace

Command AddBatchCommand(CLI::App* app, const ConnectionFlags& connection) {
  const auto path = std::make_shared<std::string>("-");
  CLI::App* command = app->add_subcommand(
      "batch",
      "Many requests, a JSON object a line, answered by a line each, in order: for scripts and other programs");
  command->add_option("FILE", *path, "The requests; - is standard input")->capture_default_str();
  command->footer(
      "A line has the fields of AttendRequest, or of ScaledDotProductAttentionRequest if there is a query; a tensor "
      "is\n"
      "nested lists or a file's name:\n"
      "  {\"id\": 1, \"embeddings\": [[1, 0], [0, 1]], \"outputs\": [\"attention_weights\"]}\n"
      "  {\"query\": \"q.npy\", \"key\": \"k.npy\", \"value\": \"v.npy\", \"options\": {\"causal\": "
      "\"bottom_right\"}}\n"
      "An error is a line too; the exit code is that of the first error, and 0 without one.");
  return {command, [path, &connection] {
            if (*path == "-") return RunBatch({std::cin, "standard input", true, connection});
            absl::StatusOr<std::ifstream> file = OpenFile(*path);
            return file.ok() ? RunBatch({*file, *path, IsStdin(*path), connection}) : ReportUsage(file.status());
          }};
}

}  // namespace attend::client
