// How the threads of a CPU are shared out: among rows first, and within operators only then.
#pragma once

#include <cstddef>

namespace igonnx {

/// `runs_at_once` runs of the runtime, `lanes` of them for one call, on `threads` threads each (0:
/// the runtime's choice).
struct Workers {
  int threads = 0;
  std::size_t lanes = 1;
  std::size_t runs_at_once = 1;
};

/// Workers that keep `threads` threads busy for one call, and all processors for several; 0: one
/// per physical core. As igonnx/engine/workers.py has it, with the reasons.
Workers shared_out(int threads);

/// Physical cores that this process may run on; processors, where the system does not tell.
int physical_cores();

}  // namespace igonnx
