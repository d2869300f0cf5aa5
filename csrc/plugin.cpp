// The face that ONNX Runtime sees: a library of custom operators.
#include <exception>

#include "runtime.hpp"

#if defined(_WIN32)
#define IGONNX_EXPORT __declspec(dllexport)
#else
#define IGONNX_EXPORT __attribute__((visibility("default")))
#endif

/// Called by the runtime when a program registers this library, with the session options to
/// register the operators on and the way to the runtime's own C API, which is kept for the engine.
extern "C" IGONNX_EXPORT igonnx::abi::Status* RegisterCustomOps(
    igonnx::abi::SessionOptions* options, const igonnx::abi::ApiBase* base) noexcept {
  using namespace igonnx;
  try {
    Runtime::attach(*base).add_operators(options);
    return nullptr;
  } catch (const std::exception& error) {
    // A status is created by slot 0 of every table there ever was. Without one there is no way to
    // refuse: the operators stay unknown, and Runtime::for_engine() tells why.
    abi::Table* table = base->GetApi(1);
    return table == nullptr
               ? nullptr
               : ort::Api(table).status_of(abi::CreateStatus, abi::ErrorCode::fail, error.what());
  }
}
