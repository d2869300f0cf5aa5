// The exceptions of the engine; bindings.cpp turns them into those of igonnx/errors.py, c_api.cpp
// into codes.
#pragma once

#include <stdexcept>

namespace igonnx {

/// The runtime failed. One line that names the model and, while a plan runs, its rows.
class EngineError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A call did not end before its deadline. The message says how far it came.
class DeadlineError : public EngineError {
  using EngineError::EngineError;
};

/// A call was cancelled. The message says how far it came.
class CancelledError : public EngineError {
  using EngineError::EngineError;
};

/// The model cannot be read, or is not what it has to be.
class ModelError : public EngineError {
  using EngineError::EngineError;
};

/// A score or gradient on the path is not a finite number. The message says where.
class NotFiniteError : public EngineError {
  using EngineError::EngineError;
};

/// An argument has the wrong dtype, shape or value. One line: what was given and what was expected.
class InputError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace igonnx
