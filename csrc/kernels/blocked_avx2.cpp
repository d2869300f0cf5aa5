#define IGONNX_ISA avx2
#include "kernels/blocked_kernels.hpp"
