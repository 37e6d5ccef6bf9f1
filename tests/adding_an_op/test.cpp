#include <catch2/catch.hpp>

#include "tests/support/op_case.h"

namespace twinlens::test {

OpCases op_cases_softsign();

// For the ops of the library CMake writes this line, from tests/op_cases/list.cmake.
TEST_CASE("softsign", "[op]") { run_op_cases(op_cases_softsign()); }

}  // namespace twinlens::test
