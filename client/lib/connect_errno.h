// Keeps gRPC's first connection of a process from failing with an error that no connection had.
//
// gRPC before 1.61 makes other calls between connect(2) and its look at errno (grpc/grpc#35064). The first thread of a
// process that queues behind another one at an absl::Mutex reads the clock's frequency from a file that most kernels do
// not have, which leaves ENOENT in errno. When both meet, a connection in progress counts as failed: "UNAVAILABLE: ...
// No such file or directory".
//
// Internal to attend.
#ifndef ATTEND_CLIENT_LIB_CONNECT_ERRNO_H_
#define ATTEND_CLIENT_LIB_CONNECT_ERRNO_H_

namespace attend::client::internal {

// Makes Abseil read the clock's frequency now, once in a process. To be called before a channel connects. May be called
// concurrently.
void ReadClockFrequency();

}  // namespace attend::client::internal

#endif  // ATTEND_CLIENT_LIB_CONNECT_ERRNO_H_
