#include "twinlens/clip/blend.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/nn/module.h"

namespace twinlens {

void blend(Clip& model, Clip& other, double alpha) {
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
