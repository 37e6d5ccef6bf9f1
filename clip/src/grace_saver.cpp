#include "clip/src/grace_saver.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <utility>

namespace twinlens {
namespace {

constexpr std::chrono::milliseconds kLook{50}, kPatience{2000};

}  // namespace

GraceSaver::GraceSaver(const std::atomic<bool>* stop, std::function<void()> save) : stop_(stop), save_(std::move(save)) {
  if (stop_ != nullptr) thread_ = std::thread([this] { watch(); });
}

GraceSaver::~GraceSaver() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_all();
  thread_.join();
}

void GraceSaver::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_->load()) {
    if (ended_.wait_for(lock, kLook, [&] { return end_; })) return;
  }
  if (ended_.wait_for(lock, kPatience, [&] { return end_; })) return;
  lock.unlock();
  const std::lock_guard state(state_);
  try {
    save_();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "warning: %s; the step under way is finished first\n", e.what());
  }
}

}  // namespace twinlens
