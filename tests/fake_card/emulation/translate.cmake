# cmake -DIN=kernel.cu -DOUT=kernel.cpp -P translate.cmake: what of CUDA no macro can say in C++.
file(READ "${IN}" text)
# kernel<T><<<grid, block, shared, stream>>>(args);
string(REGEX REPLACE "([A-Za-z_][A-Za-z_0-9:]*(<[^<>;(){}]*>)?)[ \n]*<<<([^;]*)>>>\\(([^;]*)\\);"
                     "::twinlens::emulated::Launch(\\3).run([&] { \\1(\\4); });" text "${text}")
# extern __shared__ __align__(16) T name[];
string(REGEX REPLACE "extern __shared__ (__align__\\([0-9]+\\) )?([a-z ]+) ([a-z_]+)\\[\\];"
                     "auto* const \\3 = static_cast<\\2*>(::twinlens::emulated::dynamic_shared());" text "${text}")
string(REGEX REPLACE "__launch_bounds__\\([^()]*\\)" "" text "${text}")
if(text MATCHES "<<<|extern __shared__|__launch_bounds__")
  message(FATAL_ERROR "${IN}: a launch, its bounds or an array in shared memory that tests/fake_card/emulation/translate.cmake does not read; write it as the other kernels do, or teach it")
endif()
file(WRITE "${OUT}" "#line 1 \"${IN}\"\n${text}")
