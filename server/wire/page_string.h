// Strings whose memory goes back to the system as soon as they end, when they are long: blocks of bodies, which one
// thread fills and another reads. malloc keeps what another thread's arena gives back, so that a body that was read and
// what was made of it would both stay resident.
#ifndef ATTEND_SERVER_WIRE_PAGE_STRING_H_
#define ATTEND_SERVER_WIRE_PAGE_STRING_H_

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <string>

namespace attend::server {

template <typename T>
class PageAllocator {
 public:
  using value_type = T;

  PageAllocator() = default;
  template <typename U>
  PageAllocator(const PageAllocator<U>& /*other*/) {}  // NOLINT(google-explicit-constructor): an allocator's.

  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T) + sizeof(Header);
    void* memory = MAP_FAILED;
    if (bytes >= kMapped) {
      memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    // The system bounds the number of mappings; beyond it there is malloc.
    const bool mapped = memory != MAP_FAILED;
    auto* const header = static_cast<Header*>(mapped ? memory : ::operator new(bytes));
    header->mapped_bytes = mapped ? bytes : 0;
    return reinterpret_cast<T*>(header + 1);
  }
  void deallocate(T* at, std::size_t /*count*/) {
    Header* const header = reinterpret_cast<Header*>(at) - 1;
    if (header->mapped_bytes == 0) return ::operator delete(header);
    munmap(header, header->mapped_bytes);
  }

  friend bool operator==(const PageAllocator& /*a*/, const PageAllocator& /*b*/) { return true; }
  friend bool operator!=(const PageAllocator& /*a*/, const PageAllocator& /*b*/) { return false; }

 private:
  static constexpr std::size_t kMapped = 32 << 10;
  struct alignas(16) Header {
    std::size_t mapped_bytes;
  };
};

using PageString = std::basic_string<char, std::char_traits<char>, PageAllocator<char>>;

// How long one may be so that it fills `pages` whole pages of 4 KiB, with what is kept beside it.
constexpr std::size_t PageStringBytes(std::size_t pages) { return (pages << 12) - 32; }

}  // namespace attend::server

#endif  // ATTEND_SERVER_WIRE_PAGE_STRING_H_
