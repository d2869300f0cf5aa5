// What a caller asks of an explanation graph, in the model's own names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plan.hpp"
#include "quadrature.hpp"

namespace igonnx {

enum class Role { explained, per_example, shared, output };

/// A tensor that a caller gives.
struct Tensor {
  std::string name;   // the model's
  std::string input;  // the graph's input; of an explained tensor, that of x
  abi::ElementType type;
  std::vector<std::int64_t> shape;  // -1 where any size is taken
  Role role;
};

/// What an explanation graph takes.
struct Interface {
  std::string model;           // its name, in messages
  std::vector<Tensor> inputs;  // the explained ones first
  Tensor output;               // what a cotangent has to be
  abi::ElementType dtype;      // of x, baseline, cotangent and results: float32 or float64
  std::optional<std::int64_t> fixed_rows;  // the only number of rows of a run
};

/// An array and what it is for; without a name, for the only tensor there is.
struct NamedArray {
  std::string name;
  ArrayView array;
};

/// What is to be explained: N examples. The caller keeps the arrays alive.
struct Question {
  std::vector<NamedArray> inputs;
  std::vector<NamedArray> baselines;   // each broadcasts to its input; where there is none: zeros
  std::vector<std::int64_t> target;    // flat indices into the output, N of them or one for all
  std::optional<ArrayView> cotangent;  // [N, ...], instead of a target
  Rule rule = Rule::gauss_legendre;
  std::int64_t steps = 50;
};

/// The plan for a question, and the arrays that it needs besides the caller's. T is the graph's
/// dtype, float or double.
template <typename T>
class PathPlan {
 public:
  /// `batch_size` is the number of rows of a run; 0: by the size of the inputs. Throws InputError
  /// for what does not fit.
  PathPlan(const Interface& interface, const Question& question, std::int64_t batch_size);

  /// N requests, each with as many rows as there are points(), in their order.
  const Plan& plan() const noexcept { return plan_; }

  const Quadrature& points() const noexcept { return points_; }

  /// Leaves out the rows that are not `wanted` [rows].
  void keep(const std::vector<bool>& wanted);

  // The plan has addresses of the arrays beside it.
  PathPlan(const PathPlan&) = delete;
  PathPlan& operator=(const PathPlan&) = delete;

 private:
  void add_explained(const Tensor& tensor, const ArrayView& x, const ArrayView* baseline);
  void set_cotangent(const Tensor& output, const Question& question);
  void view_rows();

  Plan plan_;
  Quadrature points_;
  std::vector<std::vector<T>> baselines_;
  std::vector<T> cotangent_, alpha_, weight_;
  std::vector<std::int64_t> row_;
};

}  // namespace igonnx
