#include "twinlens/nn/parameter.h"

namespace twinlens {

Parameter::Parameter(const Shape& shape) : value(zeros(shape)) { value.set_requires_grad(true); }

}  // namespace twinlens
