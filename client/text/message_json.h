// Messages of the protocol as JSON for tools and as tables for people.
#ifndef ATTEND_CLIENT_TEXT_MESSAGE_JSON_H_
#define ATTEND_CLIENT_TEXT_MESSAGE_JSON_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace attend::client {

using Json = nlohmann::ordered_json;

// NaN and infinities as the strings that protobuf's JSON uses; a float as the shortest decimal that is this float, so
// that 0.1f is 0.1 and not the double next to it.
Json JsonNumber(double value);
Json JsonNumber(float value);

// All fields under their names in the protocol, defaults included: numbers as numbers, types as float32, an absent
// message as null. Messages more than `levels` deep are in protobuf's own JSON form, without defaults.
Json ToJson(const google::protobuf::Message& message, int levels);

using Rows = std::vector<std::pair<std::string, std::string>>;

// A row for each field of `json`, those of nested objects among them: `max request bytes`, `256 MiB`.
Rows ToRows(const Json& json);

// `name  value` lines, aligned.
std::string FormatRows(const Rows& rows);

// `612 bytes`, `48.8 KiB`, `86.66 MiB`, `4 GiB`.
std::string FormatBytes(std::int64_t bytes);

// The elements of an array of strings, joined by commas.
std::string JoinStrings(const Json& array);

// `json` on one line, with its end: where a command prints several, a tool reads one at a time.
std::string FormatLine(const Json& json);

// Prints `json` when `format` is "json", else `table`.
void Print(const std::string& format, const Json& json, const std::string& table);

}  // namespace attend::client

#endif  // ATTEND_CLIENT_TEXT_MESSAGE_JSON_H_
