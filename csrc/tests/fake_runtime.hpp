// A stand-in for ONNX Runtime: the entries of its C API that operators use, in plain C++.
// Sanitizers see all of it, it counts what is not released, and its ParallelFor really runs in
// threads.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ort.hpp"

namespace igonnx::tests {

/// Tables and operators of the stand-in; an entry that it lacks ends the program and names itself.
class FakeRuntime {
 public:
  static ort::Api api();

  /// The runtime as a library of operators sees it; version "1.23.0".
  static const abi::ApiBase& base();

  /// Statuses, values and other objects made through the API and not yet released.
  static int live_objects();

  /// The operators that were added to the domains made through the API.
  static std::vector<const abi::CustomOp*>& operators();

  /// The operator of this name whose first input has this type.
  static const abi::CustomOp& operator_named(const std::string& name, abi::ElementType type);
};

/// A tensor of the stand-in: bytes that start misaligned by one element and end with the memory.
class FakeTensor {
 public:
  FakeTensor(abi::ElementType type, std::vector<std::int64_t> shape);

  template <typename T>
  T* data() {
    return static_cast<T*>(address());
  }
  std::size_t size() const;  // elements
  const std::vector<std::int64_t>& shape() const { return shape_; }
  abi::ElementType type() const { return type_; }
  void* address() { return memory_.get() + element_bytes(); }

 private:
  std::size_t element_bytes() const;

  abi::ElementType type_;
  std::vector<std::int64_t> shape_;
  std::unique_ptr<std::byte[]> memory_;
};

/// Attributes of a node by their names: numbers, whole or not, and lists of whole numbers.
struct FakeAttributes {
  std::map<std::string, float> numbers = {};
  std::map<std::string, std::vector<std::int64_t>> lists = {};
};

/// A node that runs one operator: what the runtime does between CreateKernel and KernelDestroy.
class FakeNode {
 public:
  FakeNode(const abi::CustomOp& op, const FakeAttributes& attributes = {});
  ~FakeNode();
  FakeNode(const FakeNode&) = delete;
  FakeNode& operator=(const FakeNode&) = delete;

  /// Runs the operator; its outputs. Throws ort::StatusError as the operator refuses.
  std::vector<std::unique_ptr<FakeTensor>> run(const std::vector<FakeTensor*>& inputs) const;

 private:
  const abi::CustomOp& op_;
  void* kernel_ = nullptr;
};

}  // namespace igonnx::tests
