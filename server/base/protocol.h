// The words that this server uses towards its callers besides the messages of proto/: its version, the keys of metadata
// and trailers, and the reasons of its errors.
#ifndef ATTEND_SERVER_BASE_PROTOCOL_H_
#define ATTEND_SERVER_BASE_PROTOCOL_H_

namespace attend::server {

// The version of this build, set by the build system from its project() line.
inline constexpr char kVersion[] = ATTEND_VERSION;

// Metadata of a request: what its caller says that it costs, see ParseCostHint.
inline constexpr char kCostHintKey[] = "attend-cost-flops";

// Trailers: where a call's time went, see FormatServerTiming; and what gRPC's own libraries obey when they retry (gRFC
// A6), beside google.rpc.RetryInfo for the application.
inline constexpr char kServerTimingKey[] = "server-timing";
inline constexpr char kRetryPushbackKey[] = "grpc-retry-pushback-ms";

// Who defines the reasons in google.rpc.ErrorInfo.
inline constexpr char kErrorDomain[] = "attend.v1";

// Every reason but those of the core: INVALID_FIELD and LIMIT_EXCEEDED (core/base/error.h).
namespace reason {

inline constexpr char kLimitExceeded[] = "LIMIT_EXCEEDED";
inline constexpr char kMalformedRequest[] = "MALFORMED_REQUEST";
inline constexpr char kUnknownMethod[] = "UNKNOWN_METHOD";
inline constexpr char kServiceUnknown[] = "SERVICE_UNKNOWN";

// Of a server that is busy or stops; each comes with a retry delay.
inline constexpr char kDraining[] = "DRAINING";
inline constexpr char kQueueFull[] = "QUEUE_FULL";
inline constexpr char kDeadlineUnreachable[] = "DEADLINE_UNREACHABLE";
inline constexpr char kMemoryBudget[] = "MEMORY_BUDGET";
inline constexpr char kTooManyCalls[] = "TOO_MANY_CALLS";
inline constexpr char kTooManyUploads[] = "TOO_MANY_UPLOADS";
inline constexpr char kUploadTooSlow[] = "UPLOAD_TOO_SLOW";

// A tenant has used up what it may use; comes with a retry delay, unless the request alone is more.
inline constexpr char kTenantQuota[] = "TENANT_QUOTA";

// Who calls, and what for.
inline constexpr char kNoCredential[] = "NO_CREDENTIAL";
inline constexpr char kBadCredential[] = "BAD_CREDENTIAL";
inline constexpr char kMissingRole[] = "MISSING_ROLE";

// Waiting does not help here.
inline constexpr char kDeadlineTooShort[] = "DEADLINE_TOO_SHORT";
inline constexpr char kNoMessage[] = "NO_MESSAGE";

// Of named layers and their storage.
inline constexpr char kLayerNotFound[] = "LAYER_NOT_FOUND";
inline constexpr char kLayerExists[] = "LAYER_EXISTS";
inline constexpr char kLayerReadOnly[] = "LAYER_READ_ONLY";
inline constexpr char kEtagMismatch[] = "ETAG_MISMATCH";
inline constexpr char kUploadOvertaken[] = "UPLOAD_OVERTAKEN";
inline constexpr char kChecksumMismatch[] = "CHECKSUM_MISMATCH";
inline constexpr char kDiskFull[] = "DISK_FULL";
inline constexpr char kDataDirReadOnly[] = "DATA_DIR_READ_ONLY";
inline constexpr char kStorageFailed[] = "STORAGE_FAILED";

}  // namespace reason
}  // namespace attend::server

#endif  // ATTEND_SERVER_BASE_PROTOCOL_H_
