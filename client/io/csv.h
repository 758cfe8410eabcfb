// Reads a matrix out of a text file of numbers with commas between them, a row a line.
#ifndef ATTEND_CLIENT_IO_CSV_H_
#define ATTEND_CLIENT_IO_CSV_H_

#include <istream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/lib/tensor.h"

namespace attend::client {

// Whether `text`, read as the infinite `value`, is a number that float64 does not reach, as 1e999, and no infinity.
bool IsBeyondFloat64(absl::string_view text, double value);

// A float64 tensor [rows, columns]. Numbers are decimal, `nan` or `inf`, with spaces around them or not; lines end as
// on Unix or Windows; empty lines may end the file. Errors: INVALID_ARGUMENT naming line and column for what is no
// number (a line of headings among them) or beyond the range of float64, for rows of different lengths, and for a file
// without numbers; DATA_LOSS when reading fails.
absl::StatusOr<Tensor> ReadCsv(std::istream& in);

// Errors: as ReadCsv, with the path; NOT_FOUND.
absl::StatusOr<Tensor> ReadCsvFile(const std::string& path);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_IO_CSV_H_
