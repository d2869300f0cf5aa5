#define IGONNX_ISA avx512
#include "kernels/blocked_kernels.hpp"
