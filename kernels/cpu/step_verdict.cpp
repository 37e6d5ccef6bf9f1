#include "twinlens/kernels/step_verdict.h"

#include "kernels/cpu/vec/vec.h"

namespace twinlens {

template <class I>
void kernel(I, const StepVerdict& a) {
  a.decide();
}
template void kernel(TWINLENS_ISA, const StepVerdict&);

}  // namespace twinlens
