// The google.rpc details of a failed call.
#ifndef ATTEND_TESTS_SUPPORT_ERROR_DETAILS_H_
#define ATTEND_TESTS_SUPPORT_ERROR_DETAILS_H_

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

namespace attend::testing {

// The google.rpc.Status that travels beside gRPC's own; fails the test when it cannot be read.
inline google::rpc::Status RichStatus(const grpc::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  return rich;
}

// The first detail of type T; a default one and a failed test when there is none.
template <typename T>
T Detail(const google::rpc::Status& status) {
  T detail;
  for (const auto& any : status.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  ADD_FAILURE() << "no " << T::descriptor()->full_name() << " in " << status.ShortDebugString();
  return detail;
}

template <typename T>
T Detail(const grpc::Status& status) {
  return Detail<T>(RichStatus(status));
}

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_ERROR_DETAILS_H_
