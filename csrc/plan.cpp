#include "plan.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <numeric>

#include "errors.hpp"

namespace igonnx {

namespace {

using abi::ElementType;

struct TypeFacts {
  ElementType type;
  const char* name;
  std::int64_t size;
};

constexpr std::array types{
    TypeFacts{ElementType::float32, "float32", 4}, TypeFacts{ElementType::float64, "float64", 8},
    TypeFacts{ElementType::float16, "float16", 2}, TypeFacts{ElementType::boolean, "bool", 1},
    TypeFacts{ElementType::int8, "int8", 1},       TypeFacts{ElementType::int16, "int16", 2},
    TypeFacts{ElementType::int32, "int32", 4},     TypeFacts{ElementType::int64, "int64", 8},
    TypeFacts{ElementType::uint8, "uint8", 1},     TypeFacts{ElementType::uint16, "uint16", 2},
    TypeFacts{ElementType::uint32, "uint32", 4},   TypeFacts{ElementType::uint64, "uint64", 8},
};

std::string text(const std::vector<std::int64_t>& shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) result += ", ";
    result += std::to_string(shape[i]);
  }
  return result + "]";
}

void require_type(const ArrayView& array, const std::string& label, ElementType expected,
                  const std::string& reason) {
  if (array.type != expected) {
    throw InputError(label + " has dtype " + name_of(array.type) + "; expected " +
                     name_of(expected) + reason);
  }
}

void require_shape(const ArrayView& array, const std::string& label,
                   const std::vector<std::int64_t>& expected, const std::string& reason) {
  if (array.shape != expected) {
    throw InputError(label + " has shape " + text(array.shape) + "; expected " + text(expected) +
                     reason);
  }
}

void require_requests(const ArrayView& array, const std::string& label, std::int64_t requests) {
  if (array.shape.empty() || array.shape.front() != requests) {
    throw InputError(label + " has shape " + text(array.shape) + "; expected [" +
                     std::to_string(requests) + ", ...], one slice per request");
  }
}

void check_explained(const Plan& plan) {
  if (plan.explained.empty()) throw InputError("no tensor to explain was given");
  const ExplainedInput& first = plan.explained.front();
  const std::string first_label = "x of '" + first.name + "'";
  if (first.x.type != ElementType::float32 && first.x.type != ElementType::float64) {
    throw InputError(first_label + " has dtype " + name_of(first.x.type) +
                     "; expected float32 or float64");
  }
  if (first.x.shape.empty()) {
    throw InputError(first_label + " has shape []; expected [R, ...], one slice per request");
  }
  const std::string as_first = " as " + first_label;
  for (const ExplainedInput& input : plan.explained) {
    const std::string x_label = "x of '" + input.name + "'";
    const std::string baseline_label = "baseline of '" + input.name + "'";
    require_type(input.x, x_label, first.x.type, as_first);
    require_requests(input.x, x_label, first.x.shape.front());
    require_type(input.baseline, baseline_label, first.x.type, as_first);
    require_shape(input.baseline, baseline_label, input.x.shape, " as " + x_label);
  }
  require_type(plan.cotangent, "cotangent", first.x.type, as_first);
  require_requests(plan.cotangent, "cotangent", first.x.shape.front());
}

void check_path(const Plan& plan) {
  const std::string as_first = " as x of '" + plan.explained.front().name + "'";
  for (const auto& [array, label] :
       {std::pair{&plan.alpha, "alpha"}, std::pair{&plan.weight, "weight"}}) {
    require_type(*array, label, plan.type(), as_first);
    require_shape(*array, label, plan.row.shape, " as row");
  }
}

void check_rows(const Plan& plan) {
  require_type(plan.row, "row", ElementType::int64, "");
  if (plan.row.shape.size() != 1) {
    throw InputError("row has shape " + text(plan.row.shape) + "; expected one axis");
  }
  if (plan.gradients) check_path(plan);
  for (const RowInput& input : plan.by_row) {
    if (input.array.shape.empty() || input.array.shape.front() != plan.rows()) {
      throw InputError("input '" + input.name + "' has shape " + text(input.array.shape) +
                       "; expected [" + std::to_string(plan.rows()) + ", ...], one slice per row");
    }
  }
  const std::int64_t* row = plan.row_data();
  for (std::int64_t i = 0; i < plan.rows(); ++i) {
    const auto where = [&] {
      return "row[" + std::to_string(i) + "] is " + std::to_string(row[i]);
    };
    if (row[i] < 0 || row[i] >= plan.requests()) {
      throw InputError(where() + "; expected an index of one of the " +
                       std::to_string(plan.requests()) + " requests");
    }
    if (i > 0 && row[i] < row[i - 1]) {
      throw InputError(where() + " after " + std::to_string(row[i - 1]) +
                       "; expected rows in the order of their requests");
    }
  }
}

bool same_slices(const ArrayView& a, const ArrayView& b) {
  return a.type == b.type && a.shape.size() == b.shape.size() &&
         std::equal(a.shape.begin() + 1, a.shape.end(), b.shape.begin() + 1);
}

bool same_contents(const ArrayView& a, const ArrayView& b) {
  return a.type == b.type && a.shape == b.shape &&
         (a.data == b.data || a.bytes() == 0 ||
          std::memcmp(a.data, b.data, static_cast<std::size_t>(a.bytes())) == 0);
}

const TypeFacts* facts_of(ElementType type) {
  for (const TypeFacts& facts : types) {
    if (facts.type == type) return &facts;
  }
  return nullptr;
}

}  // namespace

std::int64_t ArrayView::slice_size() const {
  if (shape.empty()) return 1;
  return std::reduce(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t ArrayView::slice_bytes() const { return slice_size() * size_of(type); }

std::int64_t ArrayView::bytes() const {
  return shape.empty() ? slice_bytes() : shape.front() * slice_bytes();
}

ArrayView ArrayView::part(std::int64_t first, std::int64_t end) const {
  ArrayView part = *this;
  part.data = static_cast<const std::byte*>(data) + first * slice_bytes();
  part.shape.front() = end - first;
  return part;
}

void check(const Plan& plan) {
  check_explained(plan);
  check_rows(plan);
  for (const FixedInput& input : plan.fixed) {
    if (input.batched) {
      require_requests(input.array, "fixed input '" + input.name + "'", plan.requests());
    }
  }
  if (plan.batch_size < 1) {
    throw InputError("batch_size is " + std::to_string(plan.batch_size) + "; expected at least 1");
  }
}

bool can_share_chunk(const Plan& a, const Plan& b) {
  const auto alike_explained = [](const ExplainedInput& left, const ExplainedInput& right) {
    return left.name == right.name && same_slices(left.x, right.x);
  };
  const auto alike_fixed = [](const FixedInput& left, const FixedInput& right) {
    return left.name == right.name && left.batched == right.batched &&
           (left.batched ? same_slices(left.array, right.array)
                         : same_contents(left.array, right.array));
  };
  const auto alike_by_row = [](const RowInput& left, const RowInput& right) {
    return left.name == right.name && same_slices(left.array, right.array);
  };
  return a.pad == b.pad && a.gradients == b.gradients && same_slices(a.cotangent, b.cotangent) &&
         std::equal(a.by_row.begin(), a.by_row.end(), b.by_row.begin(), b.by_row.end(),
                    alike_by_row) &&
         std::equal(a.explained.begin(), a.explained.end(), b.explained.begin(), b.explained.end(),
                    alike_explained) &&
         std::equal(a.fixed.begin(), a.fixed.end(), b.fixed.begin(), b.fixed.end(), alike_fixed);
}

std::string name_of(ElementType type) {
  const TypeFacts* facts = facts_of(type);
  return facts != nullptr ? facts->name : "dtype " + std::to_string(static_cast<int>(type));
}

std::int64_t size_of(ElementType type) {
  const TypeFacts* facts = facts_of(type);
  return facts != nullptr ? facts->size : 0;
}

}  // namespace igonnx
