#pragma once
// Between two models of one architecture: WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903).
// A fine-tuned model keeps more of what it could do before when its weights go a part of the way back.

#include "twinlens/clip/model.h"

namespace twinlens {

// Every weight and running statistic of `model` becomes (1 - alpha) of its own and alpha of `other`'s, in f32; copies of weights in bf16
// follow. Throws ConfigError, and changes nothing, for an alpha outside of 0 to 1 and where the two have other tensors.
void blend(Clip& model, Clip& other, double alpha);

}  // namespace twinlens
