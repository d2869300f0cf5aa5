// The part of ONNX Runtime's C ABI that igonnx uses, declared by slot number.
//
// No wheel of ONNX Runtime ships its C headers. Its C API is one table of function pointers that is
// only ever appended to, so a slot number and a signature, once published, hold for every later
// version. Everything here is in the table of API version 17 (ONNX Runtime 1.17), but for the last
// four fields of CustomOp, which came with version 18. runtime.cpp checks these declarations
// against the runtime that is there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace igonnx::abi {

// Handles whose insides only the runtime knows.
struct Allocator;
struct CudaProviderOptions;
struct CustomOpDomain;
struct Env;
struct IoBinding;
struct KernelContext;
struct KernelInfo;
struct MemoryInfo;
struct ModelMetadata;
struct RunOptions;
struct Session;
struct SessionOptions;
struct ShapeInferContext;
struct Status;
struct TensorInfo;  // element type and shape of a tensor
struct TypeInfo;
struct Value;

enum class ErrorCode : int { ok = 0, fail = 1, invalid_argument = 2 };

enum class LoggingLevel : int { warning = 2, fatal = 4 };

enum class OptimizationLevel : int { all = 99 };

enum class AllocatorType : int { device = 0, arena = 1 };

enum class MemoryType : int { standard = 0 };

enum class Characteristic : int { required = 0, optional = 1, variadic = 2 };

enum class ElementType : int {
  undefined = 0,
  float32 = 1,
  uint8 = 2,
  int8 = 3,
  uint16 = 4,
  int16 = 5,
  int32 = 6,
  int64 = 7,
  string = 8,
  boolean = 9,
  float16 = 10,
  float64 = 11,
  uint32 = 12,
  uint64 = 13,
};

// The table of API functions: an array of function pointers of different types.
using Function = void (*)();
using Table = const Function;

struct ApiBase {
  Table* (*GetApi)(std::uint32_t version);  // null (and a line on stderr) for a version it lacks
  const char* (*GetVersionString)();
};

// One function of the table: where it is, and its type.
template <std::size_t slot, typename Signature>
struct Entry {};

inline constexpr Entry<0, Status*(ErrorCode code, const char* message)> CreateStatus;
inline constexpr Entry<1, ErrorCode(const Status*)> GetErrorCode;
inline constexpr Entry<2, const char*(const Status*)> GetErrorMessage;
inline constexpr Entry<3, Status*(LoggingLevel, const char* log_id, Env** out)> CreateEnv;
inline constexpr Entry<8, Status*(const Env*, const void* model, std::size_t bytes,
                                  const SessionOptions*, Session** out)>
    CreateSessionFromArray;
inline constexpr Entry<10, Status*(SessionOptions** out)> CreateSessionOptions;
inline constexpr Entry<22, Status*(SessionOptions*, int level)> SetSessionLogSeverityLevel;
inline constexpr Entry<23, Status*(SessionOptions*, OptimizationLevel)>
    SetSessionGraphOptimizationLevel;
inline constexpr Entry<24, Status*(SessionOptions*, int threads)> SetIntraOpNumThreads;
inline constexpr Entry<26, Status*(const char* domain, CustomOpDomain** out)> CreateCustomOpDomain;
inline constexpr Entry<27, Status*(CustomOpDomain*, const struct CustomOp*)> CustomOpDomain_Add;
inline constexpr Entry<28, Status*(SessionOptions*, CustomOpDomain*)> AddCustomOpDomain;
inline constexpr Entry<30, Status*(const Session*, std::size_t* out)> SessionGetInputCount;
inline constexpr Entry<31, Status*(const Session*, std::size_t* out)> SessionGetOutputCount;
inline constexpr Entry<33, Status*(const Session*, std::size_t index, TypeInfo** out)>
    SessionGetInputTypeInfo;
inline constexpr Entry<34, Status*(const Session*, std::size_t index, TypeInfo** out)>
    SessionGetOutputTypeInfo;
inline constexpr Entry<36, Status*(const Session*, std::size_t index, Allocator*, char** out)>
    SessionGetInputName;
inline constexpr Entry<37, Status*(const Session*, std::size_t index, Allocator*, char** out)>
    SessionGetOutputName;
inline constexpr Entry<39, Status*(RunOptions** out)> CreateRunOptions;
inline constexpr Entry<46, Status*(RunOptions*)> RunOptionsSetTerminate;
inline constexpr Entry<47, Status*(RunOptions*)> RunOptionsUnsetTerminate;
inline constexpr Entry<49, Status*(const MemoryInfo*, void* data, std::size_t bytes,
                                   const std::int64_t* shape, std::size_t rank, ElementType,
                                   Value** out)>
    CreateTensorWithDataAsOrtValue;
inline constexpr Entry<51, Status*(Value*, void** out)> GetTensorMutableData;
inline constexpr Entry<55, Status*(const TypeInfo*, const TensorInfo** out)>
    CastTypeInfoToTensorInfo;  // null if no tensor; owned by the TypeInfo
inline constexpr Entry<60, Status*(const TensorInfo*, ElementType* out)> GetTensorElementType;
inline constexpr Entry<61, Status*(const TensorInfo*, std::size_t* out)> GetDimensionsCount;
inline constexpr Entry<62, Status*(const TensorInfo*, std::int64_t* out, std::size_t rank)>
    GetDimensions;
inline constexpr Entry<63, Status*(const TensorInfo*, const char** out, std::size_t rank)>
    GetSymbolicDimensions;  // "" for a dimension without a symbol; owned by the TensorInfo
inline constexpr Entry<65, Status*(const Value*, TensorInfo** out)> GetTensorTypeAndShape;
inline constexpr Entry<69, Status*(AllocatorType, MemoryType, MemoryInfo** out)>
    CreateCpuMemoryInfo;
inline constexpr Entry<76, Status*(Allocator*, void*)> AllocatorFree;
inline constexpr Entry<78, Status*(Allocator** out)>
    GetAllocatorWithDefaultOptions;  // never released
inline constexpr Entry<85, Status*(const KernelInfo*, const char* name, float* out)>
    KernelInfoGetAttribute_float;
inline constexpr Entry<86, Status*(const KernelInfo*, const char* name, std::int64_t* out)>
    KernelInfoGetAttribute_int64;
inline constexpr Entry<88, Status*(const KernelContext*, std::size_t* out)>
    KernelContext_GetInputCount;
inline constexpr Entry<90, Status*(const KernelContext*, std::size_t index, const Value** out)>
    KernelContext_GetInput;
inline constexpr Entry<91, Status*(KernelContext*, std::size_t index, const std::int64_t* shape,
                                   std::size_t rank, Value** out)>
    KernelContext_GetOutput;
inline constexpr Entry<92, void(Env*)> ReleaseEnv;
inline constexpr Entry<93, void(Status*)> ReleaseStatus;
inline constexpr Entry<94, void(MemoryInfo*)> ReleaseMemoryInfo;
inline constexpr Entry<95, void(Session*)> ReleaseSession;
inline constexpr Entry<96, void(Value*)> ReleaseValue;
inline constexpr Entry<97, void(RunOptions*)> ReleaseRunOptions;
inline constexpr Entry<98, void(TypeInfo*)> ReleaseTypeInfo;
inline constexpr Entry<99, void(TensorInfo*)> ReleaseTensorTypeAndShapeInfo;
inline constexpr Entry<100, void(SessionOptions*)> ReleaseSessionOptions;
inline constexpr Entry<101, void(CustomOpDomain*)> ReleaseCustomOpDomain;
inline constexpr Entry<111, Status*(const Session*, ModelMetadata** out)> SessionGetModelMetadata;
inline constexpr Entry<116, Status*(const ModelMetadata*, Allocator*, const char* key, char** out)>
    ModelMetadataLookupCustomMetadataMap;  // null for a key it does not have
inline constexpr Entry<118, void(ModelMetadata*)> ReleaseModelMetadata;
inline constexpr Entry<130, Status*(SessionOptions*, const char* key, const char* value)>
    AddSessionConfigEntry;
inline constexpr Entry<133, Status*(Session*, const RunOptions*, const IoBinding*)> RunWithBinding;
inline constexpr Entry<134, Status*(Session*, IoBinding** out)> CreateIoBinding;
inline constexpr Entry<135, void(IoBinding*)> ReleaseIoBinding;
inline constexpr Entry<136, Status*(IoBinding*, const char* name, const Value*)> BindInput;
inline constexpr Entry<137, Status*(IoBinding*, const char* name, const Value*)> BindOutput;
inline constexpr Entry<163, Status*(const KernelInfo*, const char* name, std::int64_t* out,
                                    std::size_t* size)>
    KernelInfoGetAttributeArray_int64;  // with `out` null only the size is told
inline constexpr Entry<202, Status*(IoBinding*)> SynchronizeBoundInputs;
inline constexpr Entry<203, Status*(IoBinding*)> SynchronizeBoundOutputs;
inline constexpr Entry<204, Status*(SessionOptions*, const CudaProviderOptions*)>
    SessionOptionsAppendExecutionProvider_CUDA_V2;
inline constexpr Entry<205, Status*(CudaProviderOptions** out)> CreateCUDAProviderOptions;
inline constexpr Entry<206, Status*(CudaProviderOptions*, const char* const* keys,
                                    const char* const* values, std::size_t count)>
    UpdateCUDAProviderOptions;
inline constexpr Entry<208, void(CudaProviderOptions*)> ReleaseCUDAProviderOptions;
inline constexpr Entry<216, Status*(SessionOptions*, const char* provider, const char* const* keys,
                                    const char* const* values, std::size_t count)>
    SessionOptionsAppendExecutionProvider;
inline constexpr Entry<249, Status*(const KernelInfo*, std::size_t index, int* is_constant,
                                    const Value** out)>
    KernelInfoGetConstantInput_tensor;  // owned by the session; null if not constant
inline constexpr Entry<268, Status*(const ShapeInferContext*, std::size_t index, TensorInfo** out)>
    ShapeInferContext_GetInputTypeShape;  // owned by the context
inline constexpr Entry<270, Status*(const ShapeInferContext*, std::size_t index, const TensorInfo*)>
    ShapeInferContext_SetOutputTypeShape;
inline constexpr Entry<274,
                       Status*(const KernelContext*, void (*task)(void* user, std::size_t index),
                               std::size_t tasks, std::size_t batches, void* user)>
    KernelContext_ParallelFor;

// A custom operator. `version` tells the runtime how many of the fields it may read.
struct CustomOp {
  std::uint32_t version;
  void* (*CreateKernel)(const CustomOp*, Table*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, std::size_t index);
  std::size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, std::size_t index);
  std::size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const CustomOp*, std::size_t index);
  Characteristic (*GetOutputCharacteristic)(const CustomOp*, std::size_t index);
  MemoryType (*GetInputMemoryType)(const CustomOp*, std::size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, Table*, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  // Since version 18: pairs of an input and an output that may share a buffer.
  std::size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  std::size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};

}  // namespace igonnx::abi
