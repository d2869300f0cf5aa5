// oneDNN, found at run time: matrix products of bfloat16 numbers with sums in float32.
//
// It picks its instructions by the processor: AMX tiles where there are any, else AVX512_BF16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "buffer.hpp"
#include "kernels/bfloat16.hpp"

namespace igonnx::onednn {

using kernels::BFloat16;

/// Loads the library at `path` unless one is loaded already, and returns its version, as "3.2.0".
/// Throws EngineError, in one line, where there is no such library, it is not one of version 3
/// that can run on one thread, the processor lacks bfloat16 products, or a small product comes out
/// wrong.
std::string load(const std::string& path);

/// C [rows, columns] = A [rows, inner] B [inner, columns].
struct Sizes {
  std::int64_t rows;
  std::int64_t inner;
  std::int64_t columns;

  auto operator<=>(const Sizes&) const = default;
};

/// How a matrix lies in memory: as it is, or its transpose does.
enum class Order { plain, transposed };

/// A constant B in the layout that a product wants it in.
class Weights;

/// A product for matrices of one size, made ready: with B in the order given, or packed.
class Product {
 public:
  Product(const Sizes& sizes, Order a, Order b);

  /// For packed weights, and A as it is.
  explicit Product(const Sizes& sizes);

  Product(Product&&) noexcept;
  ~Product();

  /// B as this product wants it packed; `values` are in float32.
  std::shared_ptr<const Weights> pack(const float* values, Order order) const;

  /// Whether this product takes `weights` that were packed for another number of rows.
  bool takes(const Weights& weights) const;

  /// c = a b, on the calling thread alone; several threads may call it at once. Throws EngineError.
  void run(const BFloat16* a, const BFloat16* b, float* c) const;
  void run(const BFloat16* a, const Weights& b, float* c) const;

 private:
  struct Parts;

  void run(const void* a, const void* b, float* c) const;

  Sizes sizes_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace igonnx::onednn
