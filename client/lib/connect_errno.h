// Keeps gRPC's first connection of a process from failing with an error that no connection had.
//
// gRPC before 1.61 makes other calls between connect(2) and its look at errno (grpc/grpc#35064). The first thread of a
// process that queues behind another one at an absl::Mutex reads the clock's frequency from a file that most kernels do
// not have, and the number of processors from one that a root without /sys has not, which leaves ENOENT in errno. When
// both meet, a connection in progress counts as failed: "UNAVAILABLE: ... No such file or directory".
//
// Internal to attend.
#ifndef ATTEND_CLIENT_LIB_CONNECT_ERRNO_H_
#define ATTEND_CLIENT_LIB_CONNECT_ERRNO_H_

namespace attend::client::internal {

// Makes Abseil read both files now, once in a process. To be called before a channel connects. May be called
// concurrently.
void ReadProcessorFacts();

}  // namespace attend::client::internal

#endif  // ATTEND_CLIENT_LIB_CONNECT_ERRNO_H_
