#include "kernels/blocked.hpp"

namespace igonnx::kernels {

namespace {

const BlockedKernels* best_tables() {
#if defined(IGONNX_X86_KERNELS)
  if (__builtin_cpu_supports("avx512f")) return avx512::blocked_tables;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::blocked_tables;
#endif
  return baseline::blocked_tables;
}

}  // namespace

const BlockedKernels& blocked_kernels(std::int64_t block) {
  static const BlockedKernels* const tables = best_tables();
  return tables[block == 16 ? 2 : block == 8 ? 1 : 0];
}

}  // namespace igonnx::kernels
