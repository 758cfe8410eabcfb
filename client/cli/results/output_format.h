// Turns results into what is printed or stored: tables for people, JSON for tools, .npy for arrays.
#ifndef ATTEND_CLIENT_CLI_RESULTS_OUTPUT_FORMAT_H_
#define ATTEND_CLIENT_CLI_RESULTS_OUTPUT_FORMAT_H_

#include <CLI/App.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/requests/computation.h"
#include "client/lib/tensor.h"
#include "client/text/message_json.h"

namespace attend::client {

// Declares -o with the given forms on `command`. ATTEND_FORMAT is read unless it names a form that only other commands
// have.
void AddFormatFlag(CLI::App* command, const std::vector<std::string>& forms, std::string* format);

// The tensors' types, shapes and first elements, as NumPy prints large arrays; of the top weights, which follow each
// other, the keys and weights of each query.
std::string FormatTable(const std::vector<NamedTensor>& tensors);

// tensors (data_type, shape, values row by row; NaN and infinities as the strings that protobuf's JSON uses),
// round_trip_ms, server_timing_ms, receipt.
Json OutcomeJson(const std::vector<NamedTensor>& tensors, const Outcome& outcome);

// The same behind `input`, on one line.
std::string FormatJson(const std::string& input, const std::vector<NamedTensor>& tensors, const Outcome& outcome);

// How tensors are stored: one as .npy, any number as .npz or .safetensors.
enum class FileKind { kNpy, kNpz, kSafetensors };

// How WriteTensors writes `path`: by its extension, or, without one, as .npy because it is a device or a pipe; none for
// other files.
std::optional<FileKind> KindOf(const std::string& path);

// The contents of a file; NumPy has no bfloat16, so that .npy and .npz hold the same numbers as float32. Errors: those
// of the writers in client/io. REQUIRES: one tensor for kNpy.
absl::StatusOr<std::string> FormatFile(FileKind kind, const std::vector<NamedTensor>& tensors);

// Errors: INVALID_ARGUMENT, naming `flag`, when `path` is a directory.
absl::Status CheckNoFolder(const std::string& flag, const std::string& path);

// Writes a file, see formats/files/file_writer.h. Errors: as CheckOutputPath; UNKNOWN when the file cannot be written.
absl::Status WriteTensors(const std::string& path, const std::vector<NamedTensor>& tensors);

// Whether WriteTensors would accept `path` for `count` tensors, so that a mistake is found before anything is computed.
// Errors: INVALID_ARGUMENT for another extension or several tensors for .npy.
absl::Status CheckOutputPath(const std::string& path, std::size_t count);

// The round trip, the server's share and its receipt, as lines.
std::string FormatTiming(const Outcome& outcome);

// A sentence that says how many rows of `entry` (along its last axis; for log_sum_exp, how many numbers) hold NaN,
// which a file or a table of many numbers hides; empty when there is none. Pure.
std::string NanWarning(const NamedTensor& entry);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_OUTPUT_FORMAT_H_
