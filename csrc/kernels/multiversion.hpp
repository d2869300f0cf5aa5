// IGONNX_MULTIVERSION before a function: it is compiled for several instruction sets and the loader
// picks the widest that the processor has. Elsewhere than on x86-64 Linux it means nothing, and the
// compiler's baseline is used. Such a function is `static`: GCC would export it, and the code that
// picks, in spite of hidden visibility.
#pragma once

#include <cstddef>  // for __GLIBC__

// The code that picks runs before the thread sanitizer is up, and would crash in it.
#if defined(__SANITIZE_THREAD__)
#define IGONNX_MULTIVERSION
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IGONNX_MULTIVERSION
#endif
#endif

#if defined(__has_attribute) && !defined(IGONNX_MULTIVERSION)
#if __has_attribute(target_clones) && defined(__x86_64__) && defined(__ELF__) && defined(__GLIBC__)
#define IGONNX_MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#endif
#ifndef IGONNX_MULTIVERSION
#define IGONNX_MULTIVERSION
#endif

// IGONNX_INDEPENDENT before a loop: no iteration reads what another writes, so the compiler may
// vectorise without first checking that the arrays are apart.
#if defined(__clang__)
#define IGONNX_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define IGONNX_INDEPENDENT _Pragma("GCC ivdep")
#else
#define IGONNX_INDEPENDENT
#endif

// IGONNX_INLINE: a template written once is compiled into each version of its callers.
#if defined(__GNUC__)
#define IGONNX_INLINE inline __attribute__((always_inline))
#else
#define IGONNX_INLINE inline
#endif
