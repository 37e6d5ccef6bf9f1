#pragma once
// The known name nearest to a mistyped one, by edit distance without regard to case. For error messages.

#include <string>
#include <vector>

namespace twinlens {

std::string nearest_name(const std::string& wanted, const std::vector<std::string>& known);

}  // namespace twinlens
