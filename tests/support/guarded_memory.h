// Memory that ends where no page is: what is read or written behind it ends the test. Sanitizers see nothing of what
// assembly reads. It begins as NaNs.
#ifndef ATTEND_TESTS_SUPPORT_GUARDED_MEMORY_H_
#define ATTEND_TESTS_SUPPORT_GUARDED_MEMORY_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace attend::testing {

class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t whole = (bytes + page - 1) / page * page;
    size_ = whole + page;
    pages_ = static_cast<std::byte*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages_ == MAP_FAILED || mprotect(pages_ + whole, page, PROT_NONE) != 0) std::abort();
    std::memset(pages_, 0xff, whole);
    data_ = pages_ + whole - bytes;
  }
  explicit GuardedMemory(const std::vector<std::byte>& contents) : GuardedMemory(contents.size()) {
    std::memcpy(data_, contents.data(), contents.size());
  }
  ~GuardedMemory() { munmap(pages_, size_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  std::byte* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  std::byte* pages_;
  std::size_t size_;
  std::byte* data_;
};

}  // namespace attend::testing

#endif  // ATTEND_TESTS_SUPPORT_GUARDED_MEMORY_H_
