#include "operators/matmul_bfloat16.hpp"

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "onednn.hpp"

namespace igonnx::plugin {

namespace {

using kernels::BFloat16;
using onednn::Order;
using onednn::Product;
using onednn::Sizes;
using onednn::Weights;

// Rows per task: enough for the weights to be read seldom, few enough to share out a single row of
// a batch.
constexpr std::int64_t block_rows = 64;

// Sizes that are kept ready per node. Every length of a text brings its own.
constexpr std::size_t most_products = 256;

// What a plugin in a server finds that nobody has loaded oneDNN for.
constexpr const char* default_library = "libdnnl.so.3";

Order order(bool transposed) { return transposed ? Order::transposed : Order::plain; }

std::string text(const std::vector<std::int64_t>& shape) {
  std::string result = "[";
  for (const std::int64_t size : shape) {
    if (result.size() > 1) result += ", ";
    result += std::to_string(size);
  }
  return result + "]";
}

/// A stack of matrices: the shape of what lies before the last two axes, and these two.
struct Stack {
  std::vector<std::int64_t> lead;
  std::int64_t rows;
  std::int64_t columns;
};

/// `shape` as a stack; a vector becomes a matrix of one row, or of one column as `B`.
Stack stack_of(std::vector<std::int64_t> shape, bool transposed, bool second) {
  require(!shape.empty(), "MatMulBFloat16: a factor is a scalar");
  if (shape.size() == 1) {
    shape.insert(second ? shape.end() : shape.begin(), 1);
    transposed = false;
  }
  const std::int64_t columns = shape.back();
  shape.pop_back();
  const std::int64_t rows = shape.back();
  shape.pop_back();
  return transposed ? Stack{shape, columns, rows} : Stack{shape, rows, columns};
}

std::int64_t product_of(const std::vector<std::int64_t>& sizes) {
  return std::reduce(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}

/// Stacks of matrices that meet, with axes aligned from the right and sizes of one repeated.
struct Pairs {
  std::vector<std::int64_t> lead;
  std::vector<std::int64_t> a;  // index of the matrix in each stack, per pair
  std::vector<std::int64_t> b;
};

Pairs pair_up(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  Pairs pairs{std::vector<std::int64_t>(std::max(a.size(), b.size()), 1), {0}, {0}};
  const std::size_t axes = pairs.lead.size();
  const auto size_at = [axes](const std::vector<std::int64_t>& lead, std::size_t axis) {
    return axis + lead.size() < axes ? std::int64_t{1} : lead[axis + lead.size() - axes];
  };
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const std::int64_t in_a = size_at(a, axis);
    const std::int64_t in_b = size_at(b, axis);
    require(in_a == in_b || in_a == 1 || in_b == 1, "MatMulBFloat16: stacks of shapes " + text(a) +
                                                        " and " + text(b) + " do not broadcast");
    const std::int64_t size = in_a == 1 ? in_b : in_a;
    pairs.lead[axis] = size;
    Pairs finer;
    for (std::size_t i = 0; i < pairs.a.size(); ++i) {
      for (std::int64_t j = 0; j < size; ++j) {
        finer.a.push_back(pairs.a[i] * in_a + (in_a == 1 ? 0 : j));
        finer.b.push_back(pairs.b[i] * in_b + (in_b == 1 ? 0 : j));
      }
    }
    pairs.a = std::move(finer.a);
    pairs.b = std::move(finer.b);
  }
  return pairs;
}

/// Rounded factors, one of each per thread.
Buffer& buffer_a() {
  static thread_local Buffer buffer;
  return buffer;
}

Buffer& buffer_b() {
  static thread_local Buffer buffer;
  return buffer;
}

BFloat16* rounded(Buffer& buffer, const float* values, std::int64_t count, float scale) {
  auto* result = buffer.of<BFloat16>(static_cast<std::size_t>(count));
  kernels::round_to_bfloat16(values, result, static_cast<std::size_t>(count), scale);
  return result;
}

/// Runs `task(first, rows)` for blocks of `block_rows` of `rows`; the last one takes a short rest
/// in.
template <typename Task>
void parallel_rows(const Call& call, std::int64_t rows, const Task& task) {
  const std::int64_t blocks = std::max<std::int64_t>(1, (rows + block_rows / 2 - 1) / block_rows);
  call.parallel_for(static_cast<std::size_t>(blocks), [&](std::size_t task_index) {
    const auto index = static_cast<std::int64_t>(task_index);
    const std::int64_t first = index * block_rows;
    task(first, index + 1 < blocks ? block_rows : rows - first);
  });
}

}  // namespace

/// Products made ready, by their sizes, and the constant B in every layout that they want.
struct MatMulBFloat16::State {
  struct Ready {
    Product product;
    std::shared_ptr<const Weights> weights;
  };

  std::mutex mutex;
  std::map<Sizes, std::shared_ptr<const Ready>> products;
  std::vector<std::shared_ptr<const Weights>> packed;
  const float* constant = nullptr;  // B, if it is a constant matrix

  /// The product of such sizes; without a constant, of factors as they lie in memory.
  std::shared_ptr<const Ready> get(const Sizes& sizes, Order a, Order b) {
    const std::lock_guard lock(mutex);
    auto& found = products[sizes];
    if (found == nullptr) {
      found = constant != nullptr
                  ? with_weights(sizes, b)
                  : std::make_shared<const Ready>(Ready{Product(sizes, a, b), nullptr});
      const auto made = found;
      if (products.size() > most_products) products.clear();
      return made;
    }
    return found;
  }

  std::shared_ptr<const Ready> with_weights(const Sizes& sizes, Order b) {
    Product product(sizes);
    auto weights = std::find_if(packed.begin(), packed.end(),
                                [&](const auto& each) { return product.takes(*each); });
    if (weights == packed.end()) {
      packed.push_back(product.pack(constant, b));
      weights = packed.end() - 1;
    }
    return std::make_shared<const Ready>(Ready{std::move(product), *weights});
  }
};

MatMulBFloat16::MatMulBFloat16(const Attributes& attributes)
    : transpose_a_(attributes.integer("transA", 0) != 0),
      transpose_b_(attributes.integer("transB", 0) != 0),
      alpha_(attributes.number("alpha", 1)),
      state_(std::make_unique<State>()) {
  onednn::load(default_library);
  const auto [data, shape] = attributes.constant<float>(1);
  if (data == nullptr || shape.size() != 2 || transpose_a_ || product_of(shape) == 0) return;
  state_->constant = data;
  const Stack b = stack_of(shape, transpose_b_, true);
  state_->get({block_rows, b.rows, b.columns}, Order::plain, order(transpose_b_));
}

MatMulBFloat16::~MatMulBFloat16() = default;

void MatMulBFloat16::compute(const Call& call) const {
  const auto a = call.input<float>(0);
  const auto b = call.input<float>(1);
  const Stack left = stack_of(a.shape, transpose_a_, false);
  const Stack right = stack_of(b.shape, transpose_b_, true);
  require(left.columns == right.rows, "MatMulBFloat16: A of shape " + text(a.shape) +
                                          " and B of shape " + text(b.shape) + " do not fit");
  const Pairs pairs = pair_up(left.lead, right.lead);
  std::vector<std::int64_t> shape = pairs.lead;
  if (a.shape.size() > 1) shape.push_back(left.rows);
  if (b.shape.size() > 1) shape.push_back(right.columns);
  float* c = call.output<float>(0, shape);
  const std::int64_t inner = left.columns;
  const std::int64_t columns = right.columns;
  if (product_of(shape) == 0) return;
  if (inner == 0) {
    std::fill_n(c, product_of(shape), 0.0F);
    return;
  }
  const Order order_a = order(transpose_a_);
  const Order order_b = order(transpose_b_);
  if (product_of(right.lead) == 1 && !transpose_a_) {  // one B: all rows of A in one matrix
    const bool constant = state_->constant != nullptr;
    const BFloat16* factor = constant ? nullptr : rounded(buffer_b(), b.data, inner * columns, 1);
    parallel_rows(
        call, product_of(left.lead) * left.rows, [&](std::int64_t first, std::int64_t rows) {
          const auto ready = state_->get({rows, inner, columns}, order_a, order_b);
          const auto* part = rounded(buffer_a(), a.data + first * inner, rows * inner, alpha_);
          float* result = c + first * columns;
          if (constant) {
            ready->product.run(part, *ready->weights, result);
          } else {
            ready->product.run(part, factor, result);
          }
        });
    return;
  }
  const auto ready = state_->get({left.rows, inner, columns}, order_a, order_b);
  call.parallel_for(pairs.a.size(), [&](std::size_t at) {
    const auto* first =
        rounded(buffer_a(), a.data + pairs.a[at] * left.rows * inner, left.rows * inner, alpha_);
    const auto* second =
        rounded(buffer_b(), b.data + pairs.b[at] * inner * columns, inner * columns, 1);
    ready->product.run(first, second, c + static_cast<std::int64_t>(at) * left.rows * columns);
  });
}

}  // namespace igonnx::plugin
