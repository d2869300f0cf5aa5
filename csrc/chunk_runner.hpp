// Runs chunks of one plan, reusing buffers and bindings from chunk to chunk.
#pragma once

#include <cstdint>
#include <memory>

#include "ort.hpp"
#include "plan.hpp"

namespace igonnx {

/// The state of one run of a plan. Threads may take turns, but not use it at once.
class ChunkRunner {
 public:
  virtual ~ChunkRunner() = default;

  /// Runs rows first..end - 1, stores their scores and slopes and adds their gradients to the
  /// results. Whoever has `options` may end the run early. Throws ort::StatusError; the results
  /// are then as they were.
  virtual void run(std::int64_t first, std::int64_t end, const abi::RunOptions* options) = 0;
};

/// A runner for the dtype of the plan. `session`, `plan` and `results` must outlive it.
std::unique_ptr<ChunkRunner> make_chunk_runner(const ort::Api& api, abi::Session* session,
                                               const Plan& plan, const Results& results);

}  // namespace igonnx
