#include "twinlens/clip/blend.h"

#include <string>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/nn/module.h"

namespace twinlens {

void blend(Clip& model, Clip& other, double alpha) {
  if (!(alpha >= 0.0 && alpha <= 1.0))
    throw ConfigError("blend: alpha is " + std::to_string(alpha) + "; its argument; give a number from 0 to 1");
  const NoGrad guard;
  StateDict between;
  const StateDict own = state_dict(collect(model));
  for (const auto& [name, theirs] : state_dict(collect(other))) {
    const auto found = own.find(name);
    const bool fits = found != own.end() && found->second.shape() == theirs.shape() && is_float(theirs.dtype());
    // (What does not fit is named by load_state_dict.)
    between[name] = fits ? add(affine(found->second, 1.0 - alpha, 0.0), affine(theirs, alpha, 0.0)) : theirs;
  }
  load_state_dict(collect(model), between);
}

}  // namespace twinlens
