// Single values of a message's fields as proto3's JSON, with the shortest decimals that read back to the same number:
// protobuf 3.21 prints nine digits where six are not enough. int64 are strings, bytes are base64.
//
// Pure; may be called concurrently.
#ifndef ATTEND_SERVER_CONNECT_JSON_VALUES_H_
#define ATTEND_SERVER_CONNECT_JSON_VALUES_H_

#include <google/protobuf/message.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace attend::server {

// The text as a JSON string. REQUIRES: UTF-8.
void AppendJsonString(std::string_view text, std::string& out);

// The field's value, which is no message; `index`: which one of a repeated field, -1 for a field that is not repeated.
void AppendJsonScalar(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
                      int index, std::string& out);

// Of a repeated float or double: the numbers from `begin` to `end`, each with a comma before it but for the first of
// all.
void AppendJsonNumbers(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
                       std::size_t begin, std::size_t end, std::string& out);

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_JSON_VALUES_H_
