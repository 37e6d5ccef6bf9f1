#pragma once
// SHA-256 (FIPS 180-4) of a file, as `sha256sum` prints it.

#include <string>

namespace twinlens::program {

// 64 hexadecimal digits. Throws FileError.
std::string sha256_of_file(const std::string& path);

}  // namespace twinlens::program
