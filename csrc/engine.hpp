// The native engine: runs a plan on an explanation graph, chunk by chunk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lanes.hpp"
#include "plan.hpp"
#include "runtime.hpp"
#include "scheduler.hpp"

namespace igonnx {

/// An execution provider by its full name ("CUDAExecutionProvider"), with its options.
struct Provider {
  std::string name;
  std::vector<std::pair<std::string, std::string>> options;
};

struct SessionConfig {
  const Runtime* runtime = nullptr;                 // null: the one attached first
  std::string_view model;                           // the explanation graph, serialised
  std::optional<std::string> external_data_folder;  // where its external initializers lie
  int threads = 0;                                  // per operator; 0: the runtime's choice
  std::vector<Provider> providers;  // in order of preference; the CPU comes last anyhow
  std::string log_name;             // the model, in error messages
  std::size_t queue_limit = 0;      // calls served at a time, others wait in line; 0: no limit
  std::size_t runs_at_once = 1;     // runs of the runtime at the same time
  std::size_t lanes = 1;            // of these, for one call
};

/// An input or output of a graph, as it is declared.
struct Port {
  std::string name;
  abi::ElementType type;
  std::vector<std::int64_t> shape;  // -1 where a dimension is symbolic
};

/// An explanation graph loaded in the attached runtime. Its graph inputs are `x:<name>` and
/// `baseline:<name>` per explained tensor, the fixed inputs, `row`, `alpha`, `weight` and
/// `cotangent`; its outputs `weighted_gradient:<name>`, `score` and `slope`. A graph for plans
/// without gradients has the inputs by row in the place of alpha and weight, and `score` as its
/// only output. Any number of threads may use one session at once.
class Session {
 public:
  /// Throws EngineError if no suitable runtime is attached or the runtime refuses the model.
  explicit Session(const SessionConfig& config);

  std::vector<std::string> input_names() const { return names(inputs_); }
  std::vector<std::string> output_names() const { return names(outputs_); }

  /// The graph input of that name, or null.
  const Port* find_input(const std::string& name) const;

  /// What the model's metadata has under `key`, or nothing.
  std::optional<std::string> metadata(const std::string& key) const;

  /// Throws InputError unless the plan is sound and its arrays are what the graph takes and gives.
  void check(const Plan& plan) const;

  /// Runs a plan that check() has accepted, for any number of threads; see run_in_lanes().
  /// At most `lanes` of the session's lanes are used.
  void run(const Plan& plan, const Results& results, const CallControl& control,
           std::size_t lanes) {
    run_in_lanes(scheduler_, plan, results, control, std::min(lanes, lanes_));
  }

  Counts counts() const { return scheduler_.counts(); }

 private:
  static std::vector<std::string> names(const std::vector<Port>& ports);
  ort::Session create(const SessionConfig& config) const;
  Port port(std::size_t index, bool is_input) const;
  abi::ElementType type_of_output(const std::string& name) const;

  const Runtime& runtime_;
  std::string log_name_;
  ort::Session session_;
  std::vector<Port> inputs_;
  std::vector<Port> outputs_;
  Scheduler scheduler_;
  std::size_t lanes_;
};

}  // namespace igonnx
