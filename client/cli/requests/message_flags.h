// Flags for the fields of a protobuf message, from its descriptor: a field that is new in the protocol has a flag
// without further code.
#ifndef ATTEND_CLIENT_CLI_REQUESTS_MESSAGE_FLAGS_H_
#define ATTEND_CLIENT_CLI_REQUESTS_MESSAGE_FLAGS_H_

#include <google/protobuf/message.h>

#include <CLI/App.hpp>
#include <cstdint>
#include <deque>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attend::client {

// How a field is called and explained on the command line, where that differs from its name in the protocol.
struct FlagInfo {
  const char* field;
  const char* flag = "";        // Default: `--` and the field's name with dashes.
  const char* help = "";        // Default: a reference to the protocol.
  const char* enum_value = "";  // A flag without an argument, which sets the field to this value.
  std::int64_t max = 0;         // Of a number that is at least 1. Default: the server judges the range.
};

// `attention_weights` for OUTPUT_KIND_ATTENTION_WEIGHTS.
std::string EnumWord(const google::protobuf::EnumValueDescriptor& value);

// Values by type: numbers; words of an enumeration; `1,2,3` or a file for repeated integers and for Tensors of one
// axis; a file for other Tensors, of booleans or bytes where the name ends with `mask`. Thread-compatible; neither
// copied nor moved, because CLI11 keeps pointers.
class MessageFlags {
 public:
  MessageFlags() = default;
  MessageFlags(const MessageFlags&) = delete;
  MessageFlags& operator=(const MessageFlags&) = delete;

  // Declares on `command` a flag for each field of `descriptor` that is neither deprecated nor in `without`. Entries of
  // `table` for one field exclude each other.
  void Declare(CLI::App* command, const google::protobuf::Descriptor& descriptor, absl::Span<const FlagInfo> table,
               const std::set<std::string>& without = {});

  // The first flag that was given, or empty.
  std::string FirstGiven() const;
  bool Given(const std::string& field) const;

  // Sets the fields whose flags were given, in place of what they held; `is_double` allows FLOAT64 where the arithmetic
  // is. Errors: INVALID_ARGUMENT naming the flag; those of reading files.
  absl::Status Fill(bool is_double, google::protobuf::Message* message) const;

 private:
  struct Entry {
    const google::protobuf::FieldDescriptor* field = nullptr;
    FlagInfo info;
    std::string flag;
    std::string text;
    CLI::Option* option = nullptr;
  };

  CLI::Option* DeclareOne(CLI::App* command, const google::protobuf::FieldDescriptor& field, const FlagInfo& info);
  static absl::Status Set(const Entry& entry, bool is_double, google::protobuf::Message* message);

  std::deque<Entry> entries_;
};

}  // namespace attend::client

#endif  // ATTEND_CLIENT_CLI_REQUESTS_MESSAGE_FLAGS_H_
