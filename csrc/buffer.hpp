// Memory that is used again and again.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace igonnx {

/// Memory for vector instructions, aligned to a cache line; what it held is lost when it grows.
class Buffer {
 public:
  template <typename T>
  T* of(std::size_t count) {
    if (count * sizeof(T) > size_) grow(count * sizeof(T));
    return reinterpret_cast<T*>(data_.get());
  }

  const void* get() const noexcept { return data_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, alignment); }
  };

  void grow(std::size_t size) {
    data_.reset(static_cast<std::byte*>(::operator new(size, alignment)));
    size_ = size;
  }

  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace igonnx
