// Vectors of one width for every instruction set: the compiler splits them where registers are
// shorter.
#pragma once

#include <cstdint>
#include <cstring>

namespace custom_ops {

template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(64)));
  static constexpr int64_t size = 64 / sizeof(T);
};

// Vectors go by reference: by value their calling convention would depend on the instruction set.
template <typename T>
[[gnu::always_inline]] inline void read(typename Vector<T>::type& value, const T* from) {
  std::memcpy(&value, from, sizeof(value));
}

template <typename T>
[[gnu::always_inline]] inline void write(T* to, const typename Vector<T>::type& value) {
  std::memcpy(to, &value, sizeof(value));
}

}  // namespace custom_ops
