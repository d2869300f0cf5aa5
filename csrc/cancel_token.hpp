// A switch that one thread turns to stop what others are doing.
#pragma once

#include <functional>
#include <list>
#include <mutex>

namespace igonnx {

/// Turned once, it stays turned. Safe to use from any thread.
class CancelToken {
 public:
  /// Turns the switch and calls whoever has subscribed, before it returns.
  void cancel() {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return;
    cancelled_ = true;
    for (const std::function<void()>& stop : subscribers_) stop();
  }

  bool cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

  /// While it lives, `stop` is called when the token is cancelled; at once if it already is. After
  /// its destructor has returned, `stop` is not running and will not be called.
  class Subscription {
   public:
    Subscription(CancelToken& token, std::function<void()> stop) : token_(token) {
      const std::lock_guard lock(token_.mutex_);
      place_ = token_.subscribers_.insert(token_.subscribers_.end(), std::move(stop));
      if (token_.cancelled_) (*place_)();
    }

    ~Subscription() {
      const std::lock_guard lock(token_.mutex_);
      token_.subscribers_.erase(place_);
    }

    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

   private:
    CancelToken& token_;
    std::list<std::function<void()>>::iterator place_;
  };

 private:
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  std::list<std::function<void()>> subscribers_;
};

}  // namespace igonnx
