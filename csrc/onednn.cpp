#include "onednn.hpp"

#include <array>
#include <mutex>
#include <utility>

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>
#endif

#include "errors.hpp"

namespace igonnx::onednn {

namespace {

// What is used of oneDNN's C API, version 3 (https://uxlfoundation.github.io/oneDNN/). Types are
// handles; functions return a status, 0 for success. `load` checks all of it by a product.
struct Engine;
struct Stream;
struct Memory;
struct MemoryDesc;
struct Attributes;
struct PrimitiveDesc;
struct Primitive;

struct Version {
  int major;
  int minor;
  int patch;
  const char* hash;
  unsigned cpu_runtime;
  unsigned gpu_runtime;
};

struct Argument {
  int index;
  Memory* memory;
};

using Status = int;
using Dims = std::array<std::int64_t, 12>;

constexpr int cpu_engine = 1;
constexpr unsigned default_stream = 1;
constexpr int bfloat16 = 2;
constexpr int float32 = 3;
constexpr int any_layout = 1;       // a format tag: the primitive chooses
constexpr int user_scratchpad = 1;  // the caller brings the memory a primitive works in
constexpr int query_weights = 131;  // of the memory descriptors of a primitive
constexpr int query_scratchpad = 136;
constexpr int source = 1;  // indices of arguments
constexpr int destination = 17;
constexpr int weights = 33;
constexpr int scratchpad = 80;
constexpr unsigned sequential = 1;  // kinds of threading
constexpr unsigned openmp = 2;
constexpr int avx512_bf16 = 0xe7;  // bits of an instruction set and of those it includes

struct Api {
  const Version* (*version)();
  int (*get_effective_cpu_isa)();
  Status (*engine_create)(Engine**, int kind, std::size_t index);
  Status (*stream_create)(Stream**, Engine*, unsigned flags);
  Status (*stream_destroy)(Stream*);
  Status (*memory_desc_create_with_strides)(MemoryDesc**, int rank, const std::int64_t* dims,
                                            int type, const std::int64_t* strides);
  Status (*memory_desc_create_with_tag)(MemoryDesc**, int rank, const std::int64_t* dims, int type,
                                        int tag);
  Status (*memory_desc_clone)(MemoryDesc**, const MemoryDesc*);
  Status (*memory_desc_destroy)(MemoryDesc*);
  int (*memory_desc_equal)(const MemoryDesc*, const MemoryDesc*);
  std::size_t (*memory_desc_get_size)(const MemoryDesc*);
  Status (*memory_create)(Memory**, const MemoryDesc*, Engine*, void* data);
  Status (*memory_destroy)(Memory*);
  Status (*primitive_attr_create)(Attributes**);
  Status (*primitive_attr_set_scratchpad_mode)(Attributes*, int mode);
  Status (*primitive_attr_destroy)(Attributes*);
  Status (*matmul_primitive_desc_create)(PrimitiveDesc**, Engine*, const MemoryDesc* a,
                                         const MemoryDesc* b, const MemoryDesc* bias,
                                         const MemoryDesc* c, const Attributes*);
  Status (*reorder_primitive_desc_create)(PrimitiveDesc**, const MemoryDesc* from, Engine*,
                                          const MemoryDesc* to, Engine*, const Attributes*);
  const MemoryDesc* (*primitive_desc_query_md)(const PrimitiveDesc*, int what, int index);
  Status (*primitive_desc_destroy)(PrimitiveDesc*);
  Status (*primitive_create)(Primitive**, const PrimitiveDesc*);
  Status (*primitive_execute)(const Primitive*, Stream*, int count, const Argument*);
  Status (*primitive_destroy)(Primitive*);
  // Of the OpenMP runtime that the library brings; null where it is built without.
  int (*omp_get_max_threads)();
  void (*omp_set_num_threads)(int);
};

struct Library {
  Api api;
  Engine* engine;
  std::string version;
};

const Library& library();

void check(Status status, const char* what) {
  if (status != 0) {
    throw EngineError(std::string("oneDNN: ") + what + " failed with status " +
                      std::to_string(status));
  }
}

/// Owns one object of the library.
template <typename T, auto destroy>
struct Destroy {
  void operator()(T* object) const { (library().api.*destroy)(object); }
};

template <typename T, auto destroy>
using Handle = std::unique_ptr<T, Destroy<T, destroy>>;

using AttributesHandle = Handle<Attributes, &Api::primitive_attr_destroy>;
using MemoryDescHandle = Handle<MemoryDesc, &Api::memory_desc_destroy>;
using MemoryHandle = Handle<Memory, &Api::memory_destroy>;
using PrimitiveDescHandle = Handle<PrimitiveDesc, &Api::primitive_desc_destroy>;
using PrimitiveHandle = Handle<Primitive, &Api::primitive_destroy>;
using StreamHandle = Handle<Stream, &Api::stream_destroy>;

template <typename Owner, typename Function, typename... Parameters>
Owner make(const char* what, Function function, Parameters... parameters) {
  typename Owner::pointer object = nullptr;
  check(function(&object, parameters...), what);
  return Owner(object);
}

/// Has oneDNN use the calling thread alone for as long as this lives: the engine's own threads
/// share the work out. Says nothing about other threads.
class OneThread {
 public:
  explicit OneThread(const Api& api) : api_(api) {
    if (api_.omp_set_num_threads == nullptr) return;
    before_ = api_.omp_get_max_threads();
    if (before_ != 1) api_.omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ != 1) api_.omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const Api& api_;
  int before_ = 1;
};

MemoryDescHandle matrix(std::int64_t rows, std::int64_t columns, int type, Order order) {
  const Dims dims{rows, columns};
  const Dims strides = order == Order::plain ? Dims{columns, 1} : Dims{1, rows};
  return make<MemoryDescHandle>("describing a matrix",
                                library().api.memory_desc_create_with_strides, 2, dims.data(), type,
                                strides.data());
}

MemoryHandle memory(const MemoryDesc* layout, const void* data) {
  // The library takes a mutable pointer for what it only reads, too.
  return make<MemoryHandle>("describing memory", library().api.memory_create, layout,
                            library().engine, const_cast<void*>(data));
}

/// What each thread has for itself.
struct ThreadState {
  StreamHandle stream = make<StreamHandle>("creating a stream", library().api.stream_create,
                                           library().engine, default_stream);
  Buffer scratchpad;
};

ThreadState& thread_state() {
  static thread_local ThreadState state;
  return state;
}

template <std::size_t count>
void execute(const Primitive* primitive, const std::array<Argument, count>& arguments) {
  const Library& dnnl = library();
  const OneThread one(dnnl.api);
  check(dnnl.api.primitive_execute(primitive, thread_state().stream.get(), count, arguments.data()),
        "a primitive");
}

}  // namespace

class Weights {
 public:
  MemoryDescHandle layout;
  Buffer data;
};

struct Product::Parts {
  MemoryDescHandle a;
  MemoryDescHandle c;
  PrimitiveDescHandle desc;
  PrimitiveHandle primitive;
  const MemoryDesc* b = nullptr;           // owned by `desc`
  const MemoryDesc* scratchpad = nullptr;  // likewise

  Parts(const Sizes& sizes, Order order, const MemoryDescHandle& wanted)
      : a(matrix(sizes.rows, sizes.inner, bfloat16, order)),
        c(matrix(sizes.rows, sizes.columns, float32, Order::plain)) {
    const Api& api = library().api;
    const OneThread one(api);
    const auto attributes =
        make<AttributesHandle>("creating attributes", api.primitive_attr_create);
    check(api.primitive_attr_set_scratchpad_mode(attributes.get(), user_scratchpad),
          "setting an attribute");
    desc = make<PrimitiveDescHandle>("describing a matrix product",
                                     api.matmul_primitive_desc_create, library().engine, a.get(),
                                     wanted.get(), nullptr, c.get(), attributes.get());
    primitive =
        make<PrimitiveHandle>("creating a matrix product", api.primitive_create, desc.get());
    b = api.primitive_desc_query_md(desc.get(), query_weights, 0);
    scratchpad = api.primitive_desc_query_md(desc.get(), query_scratchpad, 0);
  }
};

namespace {

MemoryDescHandle any_matrix(std::int64_t rows, std::int64_t columns) {
  const Dims dims{rows, columns};
  return make<MemoryDescHandle>("describing a matrix", library().api.memory_desc_create_with_tag, 2,
                                dims.data(), bfloat16, any_layout);
}

}  // namespace

Product::Product(const Sizes& sizes, Order a, Order b)
    : sizes_(sizes),
      parts_(std::make_unique<Parts>(sizes, a, matrix(sizes.inner, sizes.columns, bfloat16, b))) {}

Product::Product(const Sizes& sizes)
    : sizes_(sizes),
      parts_(std::make_unique<Parts>(sizes, Order::plain, any_matrix(sizes.inner, sizes.columns))) {
}

Product::Product(Product&&) noexcept = default;
Product::~Product() = default;

std::shared_ptr<const Weights> Product::pack(const float* values, Order order) const {
  const Library& dnnl = library();
  const Api& api = dnnl.api;
  auto packed = std::make_shared<Weights>();
  packed->layout = make<MemoryDescHandle>("copying a layout", api.memory_desc_clone, parts_->b);
  const auto from = matrix(sizes_.inner, sizes_.columns, float32, order);
  const OneThread one(api);
  const auto desc = make<PrimitiveDescHandle>(
      "describing the packing of weights", api.reorder_primitive_desc_create, from.get(),
      dnnl.engine, packed->layout.get(), dnnl.engine, nullptr);
  const auto reorder =
      make<PrimitiveHandle>("creating the packing of weights", api.primitive_create, desc.get());
  auto* data = packed->data.of<std::byte>(api.memory_desc_get_size(packed->layout.get()));
  const auto input = memory(from.get(), values);
  const auto output = memory(packed->layout.get(), data);
  execute(reorder.get(),
          std::array<Argument, 2>{{{source, input.get()}, {destination, output.get()}}});
  return packed;
}

bool Product::takes(const Weights& weights) const {
  return library().api.memory_desc_equal(weights.layout.get(), parts_->b) != 0;
}

void Product::run(const BFloat16* a, const BFloat16* b, float* c) const {
  run(static_cast<const void*>(a), b, c);
}

void Product::run(const BFloat16* a, const Weights& b, float* c) const {
  run(static_cast<const void*>(a), b.data.get(), c);
}

void Product::run(const void* a, const void* b, float* c) const {
  const std::size_t size = library().api.memory_desc_get_size(parts_->scratchpad);
  const auto a_memory = memory(parts_->a.get(), a);
  const auto b_memory = memory(parts_->b, b);
  const auto c_memory = memory(parts_->c.get(), c);
  const auto work = memory(parts_->scratchpad, thread_state().scratchpad.of<std::byte>(size));
  execute(parts_->primitive.get(), std::array<Argument, 4>{{{source, a_memory.get()},
                                                            {weights, b_memory.get()},
                                                            {destination, c_memory.get()},
                                                            {scratchpad, work.get()}}});
}

namespace {

constexpr const char* remedy = "precision bfloat16 needs oneDNN 3: pip install 'igonnx[bfloat16]'";

std::mutex loading;
const Library* loaded = nullptr;  // never unloaded: threads keep streams until they end

#if __has_include(<dlfcn.h>)

template <typename Function>
void find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr) {
    throw EngineError(std::string(remedy) + " (the library that was found lacks " + name + ")");
  }
}

Api api_of(void* handle) {
  Api api{};
  find(handle, "dnnl_version", api.version);
  find(handle, "dnnl_get_effective_cpu_isa", api.get_effective_cpu_isa);
  find(handle, "dnnl_engine_create", api.engine_create);
  find(handle, "dnnl_stream_create", api.stream_create);
  find(handle, "dnnl_stream_destroy", api.stream_destroy);
  find(handle, "dnnl_memory_desc_create_with_strides", api.memory_desc_create_with_strides);
  find(handle, "dnnl_memory_desc_create_with_tag", api.memory_desc_create_with_tag);
  find(handle, "dnnl_memory_desc_clone", api.memory_desc_clone);
  find(handle, "dnnl_memory_desc_destroy", api.memory_desc_destroy);
  find(handle, "dnnl_memory_desc_equal", api.memory_desc_equal);
  find(handle, "dnnl_memory_desc_get_size", api.memory_desc_get_size);
  find(handle, "dnnl_memory_create", api.memory_create);
  find(handle, "dnnl_memory_destroy", api.memory_destroy);
  find(handle, "dnnl_primitive_attr_create", api.primitive_attr_create);
  find(handle, "dnnl_primitive_attr_set_scratchpad_mode", api.primitive_attr_set_scratchpad_mode);
  find(handle, "dnnl_primitive_attr_destroy", api.primitive_attr_destroy);
  find(handle, "dnnl_matmul_primitive_desc_create", api.matmul_primitive_desc_create);
  find(handle, "dnnl_reorder_primitive_desc_create", api.reorder_primitive_desc_create);
  find(handle, "dnnl_primitive_desc_query_md", api.primitive_desc_query_md);
  find(handle, "dnnl_primitive_desc_destroy", api.primitive_desc_destroy);
  find(handle, "dnnl_primitive_create", api.primitive_create);
  find(handle, "dnnl_primitive_execute", api.primitive_execute);
  find(handle, "dnnl_primitive_destroy", api.primitive_destroy);
  return api;
}

Api open(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw EngineError(std::string(remedy) + " (" + dlerror() + ")");
  Api api = api_of(handle);
  const Version& version = *api.version();
  if (version.major != 3 || (version.cpu_runtime != openmp && version.cpu_runtime != sequential)) {
    throw EngineError(std::string(remedy) + " (" + path + " has version " +
                      std::to_string(version.major) + ", threading " +
                      std::to_string(version.cpu_runtime) +
                      "; expected version 3, built with OpenMP or without threads)");
  }
  if (version.cpu_runtime == openmp) {
    find(handle, "omp_get_max_threads", api.omp_get_max_threads);
    find(handle, "omp_set_num_threads", api.omp_set_num_threads);
  }
  return api;
}

#else

Api open(const std::string&) { throw EngineError("precision bfloat16 is available on Linux only"); }

#endif

/// Opens the library; `loaded` is set once this has succeeded.
Library opened(const std::string& path) {
  Library dnnl{open(path), nullptr, {}};
  if ((dnnl.api.get_effective_cpu_isa() & avx512_bf16) != avx512_bf16) {
    throw EngineError(
        "precision bfloat16 needs a processor with bfloat16 products (AMX or AVX512_BF16); "
        "this one has none");
  }
  check(dnnl.api.engine_create(&dnnl.engine, cpu_engine, 0), "creating an engine");
  const Version& version = *dnnl.api.version();
  dnnl.version = std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
                 std::to_string(version.patch);
  return dnnl;
}

/// Small whole numbers, which bfloat16 holds exactly: products must be right to the last bit, with
/// weights packed and as they are.
void check_products() {
  constexpr Sizes sizes{5, 37, 19};
  std::array<BFloat16, 5 * 37> a{};
  std::array<BFloat16, 37 * 19> b{};
  std::array<float, 5 * 37> a_values{};
  std::array<float, 37 * 19> b_values{};
  for (std::size_t i = 0; i < a.size(); ++i) a_values[i] = static_cast<float>(i % 7) - 3;
  for (std::size_t i = 0; i < b.size(); ++i) b_values[i] = static_cast<float>(i % 11) - 5;
  kernels::round_to_bfloat16(a_values.data(), a.data(), a.size(), 1);
  kernels::round_to_bfloat16(b_values.data(), b.data(), b.size(), 1);
  std::array<float, 5 * 19> expected{};
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t k = 0; k < 37; ++k) {
      for (std::size_t j = 0; j < 19; ++j) {
        expected[i * 19 + j] += a_values[i * 37 + k] * b_values[k * 19 + j];
      }
    }
  }
  std::array<float, 5 * 19> result{};
  const Product plain(sizes, Order::plain, Order::plain);
  plain.run(a.data(), b.data(), result.data());
  bool right = result == expected;
  result.fill(0);
  const Product packed(sizes);
  packed.run(a.data(), *packed.pack(b_values.data(), Order::plain), result.data());
  right = right && result == expected;
  if (!right) {
    throw EngineError("oneDNN " + library().version + " computes wrong products here");
  }
}

const Library& library() { return *loaded; }

}  // namespace

std::string load(const std::string& path) {
  const std::lock_guard lock(loading);
  if (loaded == nullptr) loaded = new Library(opened(path));  // kept for good
  static bool right = false;
  if (!right) check_products();
  right = true;
  return loaded->version;
}

}  // namespace igonnx::onednn
