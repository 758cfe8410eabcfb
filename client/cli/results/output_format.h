// Turns results into what is printed or stored: tables for people, JSON for tools, .npy for arrays.
#ifndef ATTEND_CLIENT_CLI_RESULTS_OUTPUT_FORMAT_H_
#define ATTEND_CLIENT_CLI_RESULTS_OUTPUT_FORMAT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/requests/computation.h"
#include "client/lib/tensor.h"

namespace attend::client {

// The tensors' types, shapes and first elements, as NumPy prints large arrays; of the top weights, which follow each
// other, the keys and weights of each query.
std::string FormatTable(const std::vector<NamedTensor>& tensors);

// One JSON object on one line: input, tensors (data_type, shape, values row by row; NaN and infinities as the strings
// that protobuf's JSON uses), round_trip_ms, server_timing_ms, receipt.
std::string FormatJson(const std::string& input, const std::vector<NamedTensor>& tensors, const Outcome& outcome);

// The .npy files of all tensors, one after the other; bfloat16, which NumPy does not have, as float32, which holds its
// numbers. Errors: as FormatNpy.
absl::StatusOr<std::string> FormatNpyStream(const std::vector<NamedTensor>& tensors);

// Whether WriteTensors writes `path` as .npy: by its extension, or, without one, because it is a device or a pipe.
bool HoldsNpy(const std::string& path);

// Errors: INVALID_ARGUMENT, naming `flag`, when `path` is a directory.
absl::Status CheckNoFolder(const std::string& flag, const std::string& path);

// Writes a .npy file (one tensor) or a .safetensors file (any number), see formats/files/file_writer.h. Errors:
// INVALID_ARGUMENT for another extension or several tensors for .npy; UNKNOWN when the file cannot be written.
absl::Status WriteTensors(const std::string& path, const std::vector<NamedTensor>& tensors);

// Whether WriteTensors would accept `path` for `count` tensors, so that a mistake is found before anything is computed.
absl::Status CheckOutputPath(const std::string& path, std::size_t count);

// The round trip, the server's share and its receipt, as lines.
std::string FormatTiming(const Outcome& outcome);

// A sentence that says how many rows of `entry` (along its last axis; for log_sum_exp, how many numbers) hold NaN,
// which a file or a table of many numbers hides; empty when there is none. Pure.
std::string NanWarning(const NamedTensor& entry);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_RESULTS_OUTPUT_FORMAT_H_
