#include "activation_mask.hpp"

#include <algorithm>
#include <exception>
#include <functional>
#include <limits>
#include <numeric>
#include <type_traits>

#include "kernels/activation_mask.hpp"

namespace igonnx {

namespace {

// Bytes of output per task: three such blocks stay in a core's second-level cache, and a task lasts
// long enough (about 10 us) to hide what it costs to hand it out.
constexpr std::size_t block_bytes = 64 * 1024;

// Runs `body`, which may throw, for a C caller that wants a status.
template <typename Body>
abi::Status* as_status(const ort::Api& api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const ort::StatusError& error) {
    return api.status_of(abi::CreateStatus, error.code(), error.what());
  } catch (const std::exception& error) {
    return api.status_of(abi::CreateStatus, abi::ErrorCode::fail, error.what());
  }
}

// An attribute, written as a float or as an integer; `otherwise` if the node has none.
float number_attribute(const ort::Api& api, const abi::KernelInfo* info, const char* name,
                       float otherwise) {
  float real = 0;
  std::int64_t integer = 0;
  abi::Status* status = api.status_of(abi::KernelInfoGetAttribute_float, info, name, &real);
  if (status == nullptr) return real;
  api(abi::ReleaseStatus, status);
  status = api.status_of(abi::KernelInfoGetAttribute_int64, info, name, &integer);
  if (status == nullptr) return static_cast<float>(integer);
  api(abi::ReleaseStatus, status);
  return otherwise;
}

template <typename T>
struct Tensor {
  T* data;
  std::vector<std::int64_t> shape;
};

template <typename T>
Tensor<const T> input(const ort::Api& api, abi::KernelContext* context, std::size_t index) {
  const auto* value = ort::get<const abi::Value*>(api, abi::KernelContext_GetInput, context, index);
  const auto info = ort::make<ort::TensorInfo>(api, abi::GetTensorTypeAndShape, value);
  // API 17 has only the function for mutable data; nothing is written through it.
  void* data = ort::get<void*>(api, abi::GetTensorMutableData, const_cast<abi::Value*>(value));
  return {static_cast<const T*>(data), ort::shape_of(api, info.get())};
}

template <typename T>
T* output(const ort::Api& api, abi::KernelContext* context,
          const std::vector<std::int64_t>& shape) {
  auto* value = ort::get<abi::Value*>(api, abi::KernelContext_GetOutput, context, std::size_t{0},
                                      shape.data(), shape.size());
  return static_cast<T*>(ort::get<void*>(api, abi::GetTensorMutableData, value));
}

template <typename T>
class Kernel {
 public:
  Kernel(const ort::Api& api, const abi::KernelInfo* info)
      : api_(api),
        lower_(number_attribute(api, info, "lower", 0)),
        upper_(number_attribute(api, info, "upper", std::numeric_limits<float>::infinity())) {}

  const ort::Api& api() const noexcept { return api_; }

  void compute(abi::KernelContext* context) const {
    const Tensor<const T> gradient = input<T>(api_, context, 0);
    const Tensor<const T> activation = input<T>(api_, context, 1);
    if (gradient.shape != activation.shape) {
      throw ort::StatusError(abi::ErrorCode::invalid_argument,
                             "ActivationMask: gradient and output differ in shape");
    }
    const std::int64_t elements = std::reduce(gradient.shape.begin(), gradient.shape.end(),
                                              std::int64_t{1}, std::multiplies<>());
    Work work{this, gradient.data, activation.data, output<T>(api_, context, gradient.shape),
              static_cast<std::size_t>(elements)};
    const std::size_t blocks = (work.count + block_size - 1) / block_size;
    if (blocks == 1) {
      compute_block(&work, 0);
    } else if (blocks > 1) {
      // 0 batches: the runtime shares the blocks out, one run of neighbours to each thread.
      api_(abi::KernelContext_ParallelFor, context, compute_block, blocks, 0, &work);
    }
  }

 private:
  static constexpr std::size_t block_size = block_bytes / sizeof(T);

  struct Work {
    const Kernel* kernel;
    const T* gradient;
    const T* activation;
    T* result;
    std::size_t count;
  };

  static void compute_block(void* user, std::size_t block) {
    const Work& work = *static_cast<const Work*>(user);
    const std::size_t first = block * block_size;
    kernels::activation_mask(work.gradient + first, work.activation + first, work.result + first,
                             std::min(block_size, work.count - first), work.kernel->lower_,
                             work.kernel->upper_);
  }

  ort::Api api_;
  T lower_;
  T upper_;
};

// The output has the shape of either input. The runtime shows an unknown shape as one without
// dimensions, so nothing is said of a scalar: an unknown shape taken for one would overrule what
// the graph declares.
void infer_shape(const ort::Api& api, abi::ShapeInferContext* context) {
  for (std::size_t index : {std::size_t{0}, std::size_t{1}}) {
    const auto* info =
        ort::get<abi::TensorInfo*>(api, abi::ShapeInferContext_GetInputTypeShape, context, index);
    if (ort::get<std::size_t>(api, abi::GetDimensionsCount, info) > 0) {
      api(abi::ShapeInferContext_SetOutputTypeShape, context, std::size_t{0}, info);
      return;
    }
  }
}

// The result may take the place of the gradient or else of the output: the kernel reads an element
// before it writes it. The runtime does so only where nobody reads that input later.
std::size_t may_in_place(int** inputs, int** outputs) {
  static std::array<int, 2> from{0, 1};
  static std::array<int, 2> to{0, 0};
  *inputs = from.data();
  *outputs = to.data();
  return from.size();
}

const ort::Api& api_of(const abi::CustomOp* self) {
  return static_cast<const CustomOperator*>(self)->api;
}

template <typename T>
CustomOperator make_operator(const ort::Api& api, std::uint32_t abi_version) {
  using abi::CustomOp;
  constexpr abi::ElementType type =
      std::is_same_v<T, float> ? abi::ElementType::float32 : abi::ElementType::float64;
  CustomOp op{};
  op.version = abi_version;
  op.GetName = [](const CustomOp*) { return "ActivationMask"; };
  op.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const CustomOp*) { return std::size_t{2}; };
  op.GetInputType = [](const CustomOp*, std::size_t) { return type; };
  op.GetOutputTypeCount = [](const CustomOp*) { return std::size_t{1}; };
  op.GetOutputType = [](const CustomOp*, std::size_t) { return type; };
  op.GetInputCharacteristic = [](const CustomOp*, std::size_t) {
    return abi::Characteristic::required;
  };
  op.GetOutputCharacteristic = [](const CustomOp*, std::size_t) {
    return abi::Characteristic::required;
  };
  op.GetInputMemoryType = [](const CustomOp*, std::size_t) { return abi::MemoryType::standard; };
  op.GetVariadicInputMinArity = [](const CustomOp*) { return 0; };
  op.GetVariadicInputHomogeneity = [](const CustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const CustomOp*) { return 0; };
  op.GetVariadicOutputHomogeneity = [](const CustomOp*) { return 0; };
  op.CreateKernelV2 = [](const CustomOp* self, abi::Table*, const abi::KernelInfo* info,
                         void** kernel) {
    const ort::Api& table = api_of(self);
    return as_status(table, [&] { *kernel = new Kernel<T>(table, info); });
  };
  op.KernelComputeV2 = [](void* kernel, abi::KernelContext* context) {
    const auto* self = static_cast<const Kernel<T>*>(kernel);
    return as_status(self->api(), [&] { self->compute(context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel<T>*>(kernel); };
  op.InferOutputShapeFn = [](const CustomOp* self, abi::ShapeInferContext* context) {
    const ort::Api& table = api_of(self);
    return as_status(table, [&] { infer_shape(table, context); });
  };
  op.GetStartVersion = [](const CustomOp*) { return 1; };
  op.GetEndVersion = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
  op.GetMayInplace = may_in_place;
  op.ReleaseMayInplace = [](int*, int*) {};
  op.GetAliasMap = [](int**, int**) { return std::size_t{0}; };
  op.ReleaseAliasMap = [](int*, int*) {};
  return {op, api};
}

}  // namespace

std::array<CustomOperator, 2> activation_mask_operators(const ort::Api& api,
                                                        std::uint32_t abi_version) {
  return {make_operator<float>(api, abi_version), make_operator<double>(api, abi_version)};
}

}  // namespace igonnx
