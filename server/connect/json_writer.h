// Messages as proto3's JSON, whose values are those of json_values.h; fields at their default are left out.
//
// Pure, but for JsonText; may be called concurrently.
#ifndef ATTEND_SERVER_CONNECT_JSON_WRITER_H_
#define ATTEND_SERVER_CONNECT_JSON_WRITER_H_

#include <google/protobuf/message.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace attend::server {

// Appends the message to `out`. False, with a part of it in `out`, as soon as `out` is longer than `max_bytes`.
// Of the well-known types, Timestamp and Duration have their own form; Any, Struct and wrappers are not supported,
// because no message of this server has one.
bool AppendJson(const google::protobuf::Message& message, std::size_t max_bytes, std::string& out);

// A message's JSON that is written as it is taken, so that many numbers need not be in memory as text: a float of four
// bytes has up to fourteen characters. Thread-compatible.
class JsonText {
 public:
  // Null as soon as the text is longer than `max_bytes`, which all numbers are written once to find out.
  static std::unique_ptr<JsonText> Of(std::unique_ptr<const google::protobuf::Message> message, std::size_t max_bytes);

  std::size_t size() const { return size_; }
  // The next tens of kilobytes; empty after the last.
  std::string Next();

 private:
  friend class JsonPieces;
  // Some text, and then values of a field that are too many to write now.
  struct Piece {
    std::string text;
    const google::protobuf::Message* message = nullptr;  // Null: the text alone.
    const google::protobuf::FieldDescriptor* field = nullptr;
    std::size_t count = 0;  // Numbers, or bytes.
  };

  std::unique_ptr<const google::protobuf::Message> message_;
  std::vector<Piece> pieces_;
  std::size_t size_ = 0;
  std::size_t piece_ = 0;  // The next one,
  std::size_t done_ = 0;   // and how many of its values were written.
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_JSON_WRITER_H_
