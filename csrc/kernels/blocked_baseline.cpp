#define IGONNX_ISA baseline
#include "kernels/blocked_kernels.hpp"
