#include "question.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <string>

#include "errors.hpp"

namespace igonnx {

namespace {

using Shape = std::vector<std::int64_t>;

std::string text(const Shape& shape) {
  std::string result = "[";
  for (const std::int64_t dimension : shape) {
    if (result.size() > 1) result += ", ";
    result += dimension < 0 ? "?" : std::to_string(dimension);
  }
  return result + "]";
}

std::string quoted(const Tensor& tensor) {
  return tensor.role == Role::output ? "the cotangent" : "input '" + tensor.name + "'";
}

std::string listed(const std::vector<Tensor>& tensors) {
  std::string result;
  for (const Tensor& tensor : tensors) {
    result += (result.empty() ? "'" : ", '") + tensor.name + "'";
  }
  return result;
}

bool fits(const Shape& shape, const Shape& declared) {
  return std::equal(
      shape.begin(), shape.end(), declared.begin(), declared.end(),
      [](std::int64_t given, std::int64_t size) { return size < 0 || given == size; });
}

void require_type(const std::string& label, const ArrayView& array, abi::ElementType expected) {
  if (array.type != expected) {
    throw InputError(label + " has dtype " + name_of(array.type) + "; expected " +
                     name_of(expected));
  }
}

// Refuses an array that is not what the tensor is declared to be; `examples` -1: any number.
void require_fit(const Tensor& tensor, const ArrayView& array, std::int64_t examples) {
  require_type(quoted(tensor), array, tensor.type);
  Shape expected = tensor.shape;
  if (expected.empty()) {
    // A number, or of unknown shape: the runtime knows. Examples are counted in any case.
    if (tensor.role == Role::shared) return;
    throw InputError(quoted(tensor) + " is declared without a shape; compile the model anew");
  }
  if (tensor.role != Role::shared) expected.front() = examples;
  if (!fits(array.shape, expected)) {
    throw InputError(quoted(tensor) + " has shape " + text(array.shape) + "; expected " +
                     text(expected));
  }
}

// For each tensor the array of its name, or null. Refuses arrays that are for none of them.
std::vector<const ArrayView*> by_tensor(const std::vector<NamedArray>& arrays,
                                        const std::vector<Tensor>& tensors, const std::string& what,
                                        const std::string& model) {
  std::vector<const ArrayView*> found(tensors.size(), nullptr);
  for (const NamedArray& each : arrays) {
    const auto place =
        each.name.empty() && tensors.size() == 1
            ? tensors.begin()
            : std::find_if(tensors.begin(), tensors.end(),
                           [&each](const Tensor& tensor) { return tensor.name == each.name; });
    if (place == tensors.end()) {
      throw InputError(each.name.empty()
                           ? "an " + what + " has no name; expected one of " + listed(tensors)
                           : model + " takes no " + what + " '" + each.name + "'; it takes " +
                                 listed(tensors));
    }
    const ArrayView*& array = found[static_cast<std::size_t>(place - tensors.begin())];
    if (array != nullptr) throw InputError(what + " '" + place->name + "' was given twice");
    array = &each.array;
  }
  return found;
}

// `from` repeated along its axes of length 1, and along those that it lacks in front.
template <typename T>
std::vector<T> broadcast(const ArrayView& from, const Shape& to, const std::string& label) {
  const std::size_t lacking = to.size() - std::min(to.size(), from.shape.size());
  Shape shape(lacking, 1);
  shape.insert(shape.end(), from.shape.begin(), from.shape.end());
  const bool possible =
      std::equal(shape.begin(), shape.end(), to.begin(), to.end(),
                 [](std::int64_t given, std::int64_t size) { return given == 1 || given == size; });
  if (!possible) {
    throw InputError(label + " has shape " + text(from.shape) + ", which does not broadcast to " +
                     text(to));
  }
  Shape stride(to.size(), 0);  // elements of `from` that a step along an axis passes
  for (std::int64_t axis = std::ssize(to) - 1, size = 1; axis >= 0; --axis) {
    stride[axis] = shape[axis] == 1 ? 0 : size;
    size *= shape[axis];
  }
  const auto count = std::reduce(to.begin(), to.end(), std::int64_t{1}, std::multiplies<>());
  std::vector<T> result(static_cast<std::size_t>(count));
  const T* source = static_cast<const T*>(from.data);
  Shape index(to.size(), 0);
  for (T& element : result) {
    element = *source;
    for (std::int64_t axis = std::ssize(to) - 1; axis >= 0; --axis) {
      source += stride[axis];
      if (++index[axis] < to[axis]) break;
      source -= stride[axis] * to[axis];
      index[axis] = 0;
    }
  }
  return result;
}

// Rows at once: 1 of an image of 224 by 224, more of smaller inputs; 1 to 64.
std::int64_t usual_batch(const Plan& plan) {
  std::int64_t bytes = 1;
  for (const ExplainedInput& input : plan.explained) bytes += input.x.slice_bytes();
  return std::clamp<std::int64_t>(1'000'000 / bytes, 1, 64);
}

}  // namespace

template <typename T>
PathPlan<T>::PathPlan(const Interface& interface, const Question& question, std::int64_t batch_size)
    : points_(with_ends(quadrature(question.rule, question.steps))) {
  const std::vector<Tensor>& tensors = interface.inputs;
  std::vector<Tensor> explained;
  std::copy_if(tensors.begin(), tensors.end(), std::back_inserter(explained),
               [](const Tensor& tensor) { return tensor.role == Role::explained; });
  const auto arrays = by_tensor(question.inputs, tensors, "input", interface.model);
  const auto baselines = by_tensor(question.baselines, explained, "baseline", interface.model);
  std::int64_t examples = -1;  // those of the first explained tensor
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    if (arrays[i] == nullptr) {
      throw InputError(quoted(tensor) + " was not given; " + interface.model + " takes " +
                       listed(tensors));
    }
    const ArrayView& array = *arrays[i];
    require_fit(tensor, array, examples);
    if (examples == -1) examples = array.shape.front();
    if (tensor.role == Role::explained) {
      add_explained(tensor, array, baselines[i]);
    } else {
      plan_.fixed.push_back({tensor.input, array, tensor.role == Role::per_example});
    }
  }
  if (examples < 1) throw InputError(quoted(tensors.front()) + " has no examples; expected some");
  set_cotangent(interface.output, question);
  const auto rows = static_cast<std::size_t>(examples) * points_.alpha.size();
  row_.reserve(rows);
  for (std::int64_t example = 0; example < examples; ++example) {
    row_.insert(row_.end(), points_.alpha.size(), example);
    alpha_.insert(alpha_.end(), points_.alpha.begin(), points_.alpha.end());
    weight_.insert(weight_.end(), points_.weight.begin(), points_.weight.end());
  }
  view_rows();
  plan_.pad = interface.fixed_rows.has_value();
  plan_.batch_size =
      interface.fixed_rows.value_or(batch_size > 0 ? batch_size : usual_batch(plan_));
}

template <typename T>
void PathPlan<T>::keep(const std::vector<bool>& wanted) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < row_.size(); ++i) {
    if (!wanted[i]) continue;
    row_[kept] = row_[i];
    alpha_[kept] = alpha_[i];
    weight_[kept] = weight_[i];
    ++kept;
  }
  row_.resize(kept);
  alpha_.resize(kept);
  weight_.resize(kept);
  view_rows();
}

template <typename T>
void PathPlan<T>::add_explained(const Tensor& tensor, const ArrayView& x,
                                const ArrayView* baseline) {
  ArrayView start = x;
  if (baseline != nullptr && baseline->shape == x.shape) {
    start = *baseline;
  } else if (baseline != nullptr) {
    const std::string label = "baseline '" + tensor.name + "'";
    require_type(label, *baseline, tensor.type);
    start.data = baselines_.emplace_back(broadcast<T>(*baseline, x.shape, label)).data();
  } else {
    const auto count = static_cast<std::size_t>(x.bytes()) / sizeof(T);
    start.data = baselines_.emplace_back(count, T{0}).data();
  }
  require_type("baseline '" + tensor.name + "'", start, tensor.type);
  plan_.explained.push_back({tensor.name, x, start});
}

template <typename T>
void PathPlan<T>::set_cotangent(const Tensor& output, const Question& question) {
  const std::int64_t examples = plan_.requests();
  if (question.target.empty() != question.cotangent.has_value()) {
    throw InputError(question.target.empty() ? "neither a target nor a cotangent was given"
                                             : "both a target and a cotangent were given");
  }
  if (question.cotangent) {
    require_fit(output, *question.cotangent, examples);
    plan_.cotangent = *question.cotangent;
    return;
  }
  if (std::ssize(question.target) != examples && question.target.size() != 1) {
    throw InputError(std::to_string(question.target.size()) + " targets were given for " +
                     std::to_string(examples) + " examples; expected one for each, or one for all");
  }
  Shape shape = output.shape;
  if (shape.empty() ||
      std::any_of(shape.begin() + 1, shape.end(), [](auto size) { return size < 0; })) {
    throw InputError("a target cannot be found in an output of shape " + text(shape) +
                     ": give a cotangent of the shape that it has for these inputs");
  }
  shape.front() = examples;
  plan_.cotangent = {nullptr, output.type, shape};
  const std::int64_t size = plan_.cotangent.slice_size();
  cotangent_.resize(static_cast<std::size_t>(examples * size));
  for (std::int64_t example = 0; example < examples; ++example) {
    const std::int64_t index =
        question.target[question.target.size() == 1 ? 0 : static_cast<std::size_t>(example)];
    if (index < 0 || index >= size) {
      throw InputError("target " + std::to_string(index) + " of example " +
                       std::to_string(example) + " is outside the output, which has " +
                       std::to_string(size) + " elements per example: expected 0 to " +
                       std::to_string(size - 1));
    }
    cotangent_[static_cast<std::size_t>(example * size + index)] = T{1};
  }
  plan_.cotangent.data = cotangent_.data();
}

template <typename T>
void PathPlan<T>::view_rows() {
  const Shape shape{std::ssize(row_)};
  plan_.row = {row_.data(), abi::ElementType::int64, shape};
  plan_.alpha = {alpha_.data(), plan_.type(), shape};
  plan_.weight = {weight_.data(), plan_.type(), shape};
}

template class PathPlan<float>;
template class PathPlan<double>;

}  // namespace igonnx
