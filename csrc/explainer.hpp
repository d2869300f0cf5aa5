// Integrated Gradients on an explanation graph, from arrays to attributions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine.hpp"
#include "question.hpp"

namespace igonnx {

struct ExplainerConfig {
  std::string_view model;  // what igonnx.compile makes, serialised
  std::string name;        // of the model, in messages
  std::optional<std::string> external_data_folder;
  std::vector<Provider> providers;
  int threads = 0;              // that one call keeps busy; 0: one per physical core
  std::int64_t batch_size = 0;  // rows of a run; 0: by the size of the inputs
  std::size_t queue_limit = 0;  // calls served at a time; 0: any number
};

/// Where results go: memory of the caller. Null pointers are passed over.
struct Answer {
  std::vector<void*> attribution;  // empty, or one per explained tensor, of its shape and dtype
  double* score = nullptr;         // [N]
  double* baseline_score = nullptr;
  double* delta = nullptr;       // sum of the attribution minus (score - baseline_score)
  double* path_score = nullptr;  // [N, points of with_ends(quadrature(rule, steps))]
  double* path_slope = nullptr;
};

/// Any number of threads may explain at once.
class Explainer {
 public:
  /// Throws ModelError if the runtime refuses the model or it is no explanation graph, and
  /// InputError for a setting that does not do.
  Explainer(const Runtime& runtime, const ExplainerConfig& config);

  const Interface& interface() const noexcept { return interface_; }

  /// Integrated Gradients (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365): (x - baseline)
  /// times the integral of the gradient on the straight path between them. Throws InputError for
  /// what does not fit, NotFiniteError, and what Session::run throws; the answer is then not
  /// written to.
  void explain(const Question& question, const Answer& answer, const CallControl& control);

 private:
  template <typename T>
  void explain_in(const Question& question, const Answer& answer, const CallControl& control);

  Session session_;
  Interface interface_;
  std::int64_t batch_size_;
};

}  // namespace igonnx
