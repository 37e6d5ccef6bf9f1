// Training on a card: steps that nobody waits for and batches that are copied ahead give the weights of plain steps.

#include <catch2/catch.hpp>
#include <cmath>

#include "tests/support/memory_runs.h"
#include "tests/support/no_card.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"
#include "tests/support/toy_training.h"

#include "twinlens/clip/trainer.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/stream.h"

namespace twinlens::test {

TEST_CASE("the switches of training on a card change no bit, and its memory is predicted", "[cuda]") {
  if (no_card()) return;
  const TemporaryFolder folder;
  TrainOptions o = toy_training(folder, toy_pairs(64, 60));
  o.device = "cuda";
  o.workers = 2;
  o.batch_size = 16;
  o.epochs = 10;
  o.lr = 1e-3;
  o.grad_clip_norm = 1.0;
  o.save_every_steps = 7;
  const auto weights = [&](const std::string& name) {
    o.name = name;
    train(o);
    const std::string log = read_file(folder / ("logs/" + name + "/out.log"));
    INFO(log);
    CHECK(std::abs(predicted_off_by(log)) < 5.0);
    return read_file(folder / ("logs/" + name + "/model/open_clip_model.safetensors"));
  };
  for (const char* precision : {"fp32", "amp_bf16", "amp"}) {
    o.precision = precision;
    o.prefetch_batches = 0;
    o.async_step = o.device_transforms = false;
    const std::string plain = weights(std::string("plain-") + precision);
    o.prefetch_batches = 2;
    CHECK((weights(std::string("ahead-") + precision) == plain));
    o.async_step = true;
    CHECK((weights(std::string("async-") + precision) == plain));
    o.device_transforms = true;  // crops and sizes alone are equal to the byte
    CHECK((weights(std::string("pictures-") + precision) == plain));
  }
}

}  // namespace twinlens::test
