// The headers that stand before tensors are written by hand: they must be the bytes that protobuf itself would write.
#include "server/wire/response_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/base/config.h"
#include "attend/v1/attention_service.pb.h"
#include "core/base/round.h"
#include "core/tensor/aligned_buffer.h"
#include "tests/support/byte_buffers.h"

namespace attend::server {
namespace {

// Around where a number, and so a header, becomes a byte longer.
const std::vector<Axes> kShapes = {{1}, {127}, {128}, {129, 2}, {3, 16383}, {2, 1, 16384}, {1, 2, 3, 40}};

constexpr v1::DataType kTypes[] = {v1::DATA_TYPE_FLOAT32, v1::DATA_TYPE_FLOAT64, v1::DATA_TYPE_FLOAT16,
                                   v1::DATA_TYPE_BFLOAT16, v1::DATA_TYPE_INT32};

std::int64_t ElementBytes(v1::DataType type) {
  if (type == v1::DATA_TYPE_FLOAT64) return 8;
  return type == v1::DATA_TYPE_FLOAT16 || type == v1::DATA_TYPE_BFLOAT16 ? 2 : 4;
}

std::int64_t Product(const Axes& shape) {
  std::int64_t product = 1;
  for (const std::int64_t axis : shape) product *= axis;
  return product;
}

// Two tensors of zeros.
std::string Response(TensorForm form, v1::DataType type, const Axes& shape, const std::string& last_field) {
  constexpr int kFields[] = {v1::AttendResponse::kOutputFieldNumber, v1::AttendResponse::kScoresFieldNumber};
  ResponseBuffer response(form, {last_field.begin(), last_field.end()});
  for (const int field : kFields) response.AddTensor(field, type, shape);
  response.Allocate();
  for (const int field : kFields) {
    // As kernels may, up to the end of a cache line.
    const std::int64_t bytes = RoundUp(Product(shape) * ElementBytes(type), kCacheLine);
    std::memset(response.Elements(field), 0, static_cast<std::size_t>(bytes));
  }
  const double serialized_bytes = response.SerializedBytes();
  std::string bytes = Join(response.Take());
  EXPECT_EQ(static_cast<double>(bytes.size()), serialized_bytes);
  return bytes;
}

v1::Tensor Tensor(TensorForm form, v1::DataType type, const Axes& shape) {
  v1::Tensor tensor;
  tensor.set_data_type(type);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  const std::int64_t elements = Product(shape);
  if (form == TensorForm::kData) {
    tensor.set_data(std::string(static_cast<std::size_t>(elements * ElementBytes(type)), '\0'));
  } else {
    tensor.mutable_values()->Resize(static_cast<int>(elements), 0);
  }
  return tensor;
}

TEST(ResponseBuffer, BytesAreThoseOfProtobuf) {
  for (const TensorForm form : {TensorForm::kData, TensorForm::kValues}) {
    for (const v1::DataType type : kTypes) {
      for (const Axes& shape : kShapes) {
        v1::AttendResponse expected;
        *expected.mutable_output() = Tensor(form, type, shape);
        *expected.mutable_scores() = expected.output();
        for (const std::size_t etag_size : {0, 1, 13, 32, 100, 200}) {
          v1::AttendResponse last;
          if (etag_size > 0) last.mutable_receipt()->set_layer_etag(std::string(etag_size, 'x'));
          *expected.mutable_receipt() = last.receipt();
          if (etag_size == 0) expected.clear_receipt();
          EXPECT_TRUE(Response(form, type, shape, last.SerializeAsString()) == expected.SerializeAsString())
              << v1::DataType_Name(type) << (form == TensorForm::kData ? " data " : " values ")
              << ::testing::PrintToString(shape) << " " << etag_size;
        }
      }
    }
  }
}

// The message may wait for its reader for long, and is counted as no more than it is. Sanitizers keep no freed blocks.
#if !defined(ABSL_HAVE_ADDRESS_SANITIZER) && !defined(ABSL_HAVE_THREAD_SANITIZER)
TEST(ResponseBuffer, ComputedElementsAreGivenBackBeforeTheMessageIsSent) {
  constexpr std::int64_t kElements = 3 << 20;  // Blocks of this size are kept when they are freed, which is counted.
  const std::string no_field;                  // GCC 12 warns of a moved default one.
  ResponseBuffer response(TensorForm::kValues, {no_field.begin(), no_field.end()});
  response.AddTensor(v1::AttendResponse::kOutputFieldNumber, v1::DATA_TYPE_FLOAT64, Axes{kElements});
  response.Allocate();
  std::memset(response.Elements(v1::AttendResponse::kOutputFieldNumber), 0, kElements * sizeof(double));
  const std::size_t before = PooledBytes();
  const grpc::ByteBuffer message = response.Take();
  EXPECT_GE(PooledBytes(), before + kElements * sizeof(double));
  EXPECT_GE(message.Length(), kElements * sizeof(float));
}
#endif

}  // namespace
}  // namespace attend::server
