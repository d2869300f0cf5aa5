// The ONNX Runtime of this process: found through RegisterCustomOps, checked, kept.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "operators/custom_operator.hpp"
#include "ort.hpp"

namespace igonnx {

/// One copy of ONNX Runtime that has loaded this library. It lives as long as the process: sessions
/// keep pointers to its operators, and the order in which libraries leave a process is not ours.
class Runtime {
 public:
  /// Checks the runtime behind `base` and keeps it; the same runtime is kept once. Throws
  /// EngineError if it is too old, or if this library's idea of its C API turns out to be wrong.
  /// Thread-safe.
  static const Runtime& attach(const abi::ApiBase& base);

  /// The runtime attached first, or null.
  static const Runtime* attached();

  /// The runtime that the engine runs on: the one attached first. Throws EngineError if there is
  /// none (and says why the last attempt failed) or if it is older than the engine needs.
  static const Runtime& for_engine();

  const ort::Api& api() const noexcept { return api_; }

  /// For instance "1.23.2".
  const std::string& version() const noexcept { return version_; }

  /// The environment, shared with whoever else in the process uses this runtime.
  const ort::Env& env() const;

  /// Makes the operators of the domain ai.igonnx known to sessions created with `options`.
  void add_operators(abi::SessionOptions* options) const;

  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

 private:
  explicit Runtime(const abi::ApiBase& base);

  const abi::ApiBase* base_;
  std::string version_;
  ort::Api api_;
  std::vector<CustomOperator> operators_;
  ort::CustomOpDomain domain_;
  mutable std::once_flag env_once_;
  mutable std::unique_ptr<ort::Env> env_;
};

}  // namespace igonnx
