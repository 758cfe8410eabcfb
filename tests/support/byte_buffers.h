// What a test sees of the messages that the transport takes and gives.
#ifndef ATTEND_TESTS_SUPPORT_BYTE_BUFFERS_H_
#define ATTEND_TESTS_SUPPORT_BYTE_BUFFERS_H_

#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace attend::server {

// All bytes of `buffer`, one slice after the other.
inline std::string Join(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

}  // namespace attend::server

#endif  // ATTEND_TESTS_SUPPORT_BYTE_BUFFERS_H_
