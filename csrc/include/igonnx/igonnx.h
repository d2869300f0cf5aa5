/* igonnx for C and C++: attributions of ONNX models, computed in the ONNX Runtime that a program
 * uses already.
 *
 * A program hands over the OrtApiBase of its own ONNX Runtime (1.20 or later; what OrtGetApiBase()
 * returns) and an explanation graph, the file that `igonnx compile MODEL -o OUT` writes. Nothing of
 * this library is linked to ONNX Runtime, and there is no second copy of it.
 *
 *     igonnx_error error;
 *     igonnx_explainer* explainer = NULL;
 *     if (igonnx_create(OrtGetApiBase(), "model.explain.onnx", NULL, &explainer, &error) != 0)
 *       puts(error.message);
 *     igonnx_request request = IGONNX_REQUEST_INIT;  // inputs, target, steps
 *     igonnx_result result = IGONNX_RESULT_INIT;     // where the attribution goes
 *     igonnx_explain(explainer, &request, &result, &error);
 *     igonnx_free(explainer);
 *
 * Threads: any number of them may call igonnx_explain() on one explainer at once; their rows share
 * batches where the inputs allow. igonnx_cancel() may be called from any thread. What is freed must
 * not be in use.
 *
 * Errors: functions return a code and, where `error` is not NULL, fill it; no C++ exception leaves
 * the library. On success error->code is IGONNX_OK and error->message empty.
 *
 * Versions: functions and fields are only ever added, fields at the end of structs that begin with
 * `struct_size`. Set it to the size of the struct as the program knows it, and all the rest to zero
 * before it is filled in: the _INIT macros do so. Arrays are row-major and contiguous, in native
 * byte order; strings are UTF-8 and end with a zero.
 */
#ifndef IGONNX_IGONNX_H
#define IGONNX_IGONNX_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(IGONNX_BUILDS_LIBRARY)
#define IGONNX_API __declspec(dllexport)
#elif defined(_WIN32)
#define IGONNX_API __declspec(dllimport)
#else
#define IGONNX_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#define IGONNX_NOEXCEPT noexcept
#else
#define IGONNX_NOEXCEPT
#endif

/* What ONNX Runtime's C API begins with; declared in onnxruntime_c_api.h. */
struct OrtApiBase;

/* An explanation graph, loaded. */
typedef struct igonnx_explainer igonnx_explainer;

/* A switch that stops the calls it was handed to. */
typedef struct igonnx_cancel_token igonnx_cancel_token;

/* -- errors ---------------------------------------------------------------------------------- */

typedef int32_t igonnx_code;
enum {
  IGONNX_OK = 0,
  IGONNX_INVALID_ARGUMENT = 1, /* a name, dtype, shape or value that does not fit */
  IGONNX_MODEL_ERROR = 2,   /* cannot be read, is no explanation graph, or the runtime refuses it */
  IGONNX_RUNTIME_ERROR = 3, /* ONNX Runtime is too old, or failed while it ran the model */
  IGONNX_NOT_FINITE = 4,    /* a score or gradient on the path is infinite or not a number */
  IGONNX_DEADLINE = 5,      /* timeout_seconds have passed */
  IGONNX_CANCELLED = 6,     /* igonnx_cancel(), or `progress` returned something else than 0 */
  IGONNX_OUT_OF_MEMORY = 7,
  IGONNX_INTERNAL_ERROR = 8 /* a defect of this library */
};

typedef struct igonnx_error {
  igonnx_code code;
  char message[1020]; /* one line: what was given and what was expected; cut where it is longer */
} igonnx_error;

/* -- arrays ---------------------------------------------------------------------------------- */

/* Element types; the numbers are those of ONNX (TensorProto.DataType) and of ONNX Runtime. */
typedef int32_t igonnx_type;
enum {
  IGONNX_FLOAT32 = 1,
  IGONNX_UINT8 = 2,
  IGONNX_INT8 = 3,
  IGONNX_UINT16 = 4,
  IGONNX_INT16 = 5,
  IGONNX_INT32 = 6,
  IGONNX_INT64 = 7,
  IGONNX_BOOL = 9,
  IGONNX_FLOAT16 = 10,
  IGONNX_FLOAT64 = 11,
  IGONNX_UINT32 = 12,
  IGONNX_UINT64 = 13
};

/* An array that the caller owns. The layout of this struct never changes. */
typedef struct igonnx_array {
  const char* name;     /* of the model's tensor; may be NULL where there is only one it can mean */
  const void* data;     /* as many elements as the shape has */
  const int64_t* shape; /* [rank]; may be NULL where rank is 0, a single number */
  size_t rank;
  igonnx_type type;
} igonnx_array;

/* -- loading --------------------------------------------------------------------------------- */

/* An execution provider of ONNX Runtime, by its full name ("CUDAExecutionProvider"), with its
 * options. */
typedef struct igonnx_provider {
  const char* name;
  const char* const* keys;   /* [option_count] */
  const char* const* values; /* [option_count] */
  size_t option_count;
} igonnx_provider;

typedef struct igonnx_options {
  size_t struct_size;
  int32_t threads;    /* that one call keeps busy; 0: one per physical core */
  int64_t batch_size; /* gradients that a run computes at once; 0: by the size of the inputs */
  size_t queue_limit; /* calls served at a time, others wait in line; 0: any number */
  const char* name;   /* of the model in messages; NULL: the file's name */
  const char* external_data_folder; /* where external weights lie; NULL: the file's folder */
  const igonnx_provider* providers; /* in order of preference; the CPU comes last anyhow */
  size_t provider_count;
} igonnx_options;

#define IGONNX_OPTIONS_INIT {sizeof(igonnx_options), 0, 0, 0, NULL, NULL, NULL, 0}

/* Loads the explanation graph in the file `path`. `options` may be NULL. *explainer is set on
 * success, else to NULL. The first explainer creates the runtime's environment, unless the program
 * has: one with settings of its own must be created before. */
IGONNX_API igonnx_code igonnx_create(const struct OrtApiBase* runtime, const char* path,
                                     const igonnx_options* options, igonnx_explainer** explainer,
                                     igonnx_error* error) IGONNX_NOEXCEPT;

/* The same for a file's contents in memory, which may be freed afterwards. */
IGONNX_API igonnx_code igonnx_create_from_memory(const struct OrtApiBase* runtime, const void* data,
                                                 size_t size, const igonnx_options* options,
                                                 igonnx_explainer** explainer,
                                                 igonnx_error* error) IGONNX_NOEXCEPT;

/* Frees it once no call uses it; NULL is ignored. */
IGONNX_API void igonnx_free(igonnx_explainer* explainer) IGONNX_NOEXCEPT;

/* -- what a model takes ---------------------------------------------------------------------- */

typedef int32_t igonnx_role;
enum {
  IGONNX_EXPLAINED = 0,   /* gets an attribution; [examples, ...] */
  IGONNX_PER_EXAMPLE = 1, /* held fixed along the path; [examples, ...] */
  IGONNX_SHARED = 2,      /* held fixed, and the same for all examples */
  IGONNX_OUTPUT = 3       /* what is explained, as a cotangent has to be; [examples, ...] */
};

typedef struct igonnx_tensor_info {
  size_t struct_size;
  const char* name;     /* lives as long as the explainer, as does shape; empty for the output */
  const int64_t* shape; /* [rank]; -1 where any size is taken */
  size_t rank;
  igonnx_type type;
  igonnx_role role;
} igonnx_tensor_info;

#define IGONNX_TENSOR_INFO_INIT {sizeof(igonnx_tensor_info), NULL, NULL, 0, 0, 0}

/* Number of inputs, of which the explained ones come first; 0 for NULL. */
IGONNX_API size_t igonnx_input_count(const igonnx_explainer* explainer) IGONNX_NOEXCEPT;

IGONNX_API igonnx_code igonnx_input_info(const igonnx_explainer* explainer, size_t index,
                                         igonnx_tensor_info* info,
                                         igonnx_error* error) IGONNX_NOEXCEPT;

IGONNX_API igonnx_code igonnx_output_info(const igonnx_explainer* explainer,
                                          igonnx_tensor_info* info,
                                          igonnx_error* error) IGONNX_NOEXCEPT;

/* -- explaining ------------------------------------------------------------------------------ */

/* Quadrature rules on the path from baseline (0) to input (1); weights sum to 1. One step of
 * IGONNX_RIGHT is the gradient at the input, times (input - baseline). */
typedef int32_t igonnx_rule;
enum {
  IGONNX_GAUSS_LEGENDRE = 0, /* exact for polynomials of degree 2 steps - 1; at most 5000 steps */
  IGONNX_TRAPEZOID = 1,      /* steps + 1 points, the ends among them */
  IGONNX_MIDDLE = 2,         /* Riemann sums over equal intervals */
  IGONNX_LEFT = 3,
  IGONNX_RIGHT = 4
};

/* Called by the thread that explains, from time to time, with the gradients done and those in all.
 * Anything but 0 cancels the call. */
typedef int (*igonnx_progress)(void* user, int64_t done, int64_t total);

/* Integrated Gradients (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365) of a batch of examples.
 *
 * Give either `target` or `cotangent`: the score of an example is one element of its output, or the
 * sum of output times cotangent. */
typedef struct igonnx_request {
  size_t struct_size;
  const igonnx_array* inputs; /* every input of the model, by name */
  size_t input_count;
  /* Where paths start, each broadcast to its input. Those that are left out are zeros. */
  const igonnx_array* baselines;
  size_t baseline_count;
  /* Indices into the output without its batch axis, flattened row-major: one for each example, or
   * a single one for all. */
  const int64_t* target;
  size_t target_count;
  /* [examples, ...], of the shape of the output with its batch axis in front; or NULL. */
  const igonnx_array* cotangent;
  igonnx_rule rule;
  int64_t steps;
  double timeout_seconds;      /* for the whole call, waiting included; 0: none */
  igonnx_cancel_token* cancel; /* or NULL */
  igonnx_progress progress;    /* or NULL */
  void* user;                  /* handed to `progress` */
} igonnx_request;

#define IGONNX_REQUEST_INIT                                      \
  {sizeof(igonnx_request), NULL, 0,   NULL, 0,    NULL, 0, NULL, \
   IGONNX_GAUSS_LEGENDRE,  50,   0.0, NULL, NULL, NULL}

/* Where results go: memory of the caller, written on success only. Any pointer may be NULL. */
typedef struct igonnx_result {
  size_t struct_size;
  void* const* attribution; /* [attribution_count]: for each explained input, in their order, an
                               array of its shape and type; NULL for one that is not wanted */
  size_t attribution_count; /* number of explained inputs, or 0 */
  double* score;            /* [examples]: at the input */
  double* baseline_score;   /* [examples] */
  double* delta;            /* [examples]: sum of the attribution minus (score - baseline_score) */
  double* path_score;       /* [examples, points of igonnx_path()]: along the path */
  double* path_slope;       /* [examples, points]: derivative of the score by alpha */
} igonnx_result;

#define IGONNX_RESULT_INIT {sizeof(igonnx_result), NULL, 0, NULL, NULL, NULL, NULL, NULL}

IGONNX_API igonnx_code igonnx_explain(igonnx_explainer* explainer, const igonnx_request* request,
                                      igonnx_result* result, igonnx_error* error) IGONNX_NOEXCEPT;

/* The points of a path: those of the rule, and its ends, with weight 0 where they are none of them
 * (gradients are computed at all of them). `alpha` and `weight` get *count numbers each, at most
 * steps + 2, in increasing order; either may be NULL. */
IGONNX_API igonnx_code igonnx_path(igonnx_rule rule, int64_t steps, double* alpha, double* weight,
                                   size_t* count, igonnx_error* error) IGONNX_NOEXCEPT;

/* -- stopping -------------------------------------------------------------------------------- */

/* NULL if memory has run out. */
IGONNX_API igonnx_cancel_token* igonnx_cancel_token_create(void) IGONNX_NOEXCEPT;

/* Stops every call that has this token, now and later, and returns at once. */
IGONNX_API void igonnx_cancel(igonnx_cancel_token* token) IGONNX_NOEXCEPT;

/* NULL is ignored. Calls that have the token go on. */
IGONNX_API void igonnx_cancel_token_free(igonnx_cancel_token* token) IGONNX_NOEXCEPT;

/* The release of the library, for instance "0.1.0". */
IGONNX_API const char* igonnx_version(void) IGONNX_NOEXCEPT;

#undef IGONNX_NOEXCEPT
#ifdef __cplusplus
}
#endif

#endif
