// Numbers, words, strings and bytes of JSON, as a protobuf message has them on the wire.
//
// Thread-compatible.
#ifndef ATTEND_SERVER_CONNECT_JSON_SCALARS_H_
#define ATTEND_SERVER_CONNECT_JSON_SCALARS_H_

#include <google/protobuf/descriptor.h>

#include <string>

#include "server/connect/json_cursor.h"
#include "server/connect/wire_blocks.h"

namespace attend::server {

// Both must outlive the object.
class JsonScalars {
 public:
  JsonScalars(JsonCursor& in, WireBlocks& out) : in_(in), out_(out) {}

  // Reads a value of the field and writes it without tag and length. Null, or why it is no such value: a sentence
  // without its end. REQUIRES: the field's type is neither a message nor sint, fixed or a group.
  const char* Read(const google::protobuf::FieldDescriptor& field);

 private:
  const char* Number(double& value);
  const char* Float();
  const char* Double();
  template <typename Integer>
  const char* Whole();
  const char* Bool();
  const char* Enum(const google::protobuf::FieldDescriptor& field);
  const char* Text();
  const char* Base64();

  JsonCursor& in_;
  WireBlocks& out_;
  std::string token_;
};

}  // namespace attend::server

#endif  // ATTEND_SERVER_CONNECT_JSON_SCALARS_H_
