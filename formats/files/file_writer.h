// Writes a whole file so that readers see the old contents or all of the new ones.
#ifndef ATTEND_FORMATS_FILES_FILE_WRITER_H_
#define ATTEND_FORMATS_FILES_FILE_WRITER_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace attend {

// Writes `contents` to the file that `path` names.
//
// Symbolic links are followed, also one whose target does not exist yet: the link stays and its target is written. The
// contents go to a new file in the target's folder, unnamed where the file system can do that, which then takes the
// target's place. An existing file keeps its mode and its owner.
//
// A file is written in place, so that a reader may see a part of it, in three cases: it has further names (hard links,
// which all show the new contents), its owner could not be kept, or its folder admits no new file. What is no regular
// file is written as it comes: a pipe, a device, and a descriptor of this process such as /dev/stdout, which goes on
// where it stands.
//
// A failure leaves no other file behind. Errors: UNKNOWN naming `path` and the system's reason; a folder is refused, as
// is a file that this process may not write.
//
// May be called concurrently. Blocks while a pipe has no reader or is full, also one that is non-blocking.
absl::Status WriteFile(const std::string& path, std::string_view contents);

}  // namespace attend

#endif  // ATTEND_FORMATS_FILES_FILE_WRITER_H_
