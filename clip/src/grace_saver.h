#pragma once
// SIGTERM gives a process some seconds before it is killed; a step may take longer than that. When a run is asked to stop and its step
// does not end within two seconds, this saves the last complete step while the step under way goes on.

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace twinlens {

class GraceSaver {
 public:
  // `save` is called at most once, by a thread of this object, with state() held.
  GraceSaver(const std::atomic<bool>* stop, std::function<void()> save);
  ~GraceSaver();
  GraceSaver(const GraceSaver&) = delete;
  GraceSaver& operator=(const GraceSaver&) = delete;

  // Who changes or saves the state of training holds this.
  std::mutex& state() { return state_; }

 private:
  void watch();

  const std::atomic<bool>* stop_;
  std::function<void()> save_;
  std::mutex state_, mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace twinlens
