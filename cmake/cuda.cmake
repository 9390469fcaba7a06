# The module for NVIDIA GPUs, where nvcc and cuBLASLt are; the program is the same without it. A build of its own by nvcc, so
# that nothing of it depends on CMake's knowledge of a device: there need be none here.
option(XKD_CUDA "Build the module for NVIDIA GPUs where nvcc and cuBLASLt are found" ON)
set(XKD_CUDA_ARCHITECTURES "80;90;100" CACHE STRING "Architectures of the GPU kernels; PTX of the last is added for later ones")
if(NOT XKD_CUDA OR XKD_SANITIZE OR CMAKE_CROSSCOMPILING)
  return()
endif()
find_program(NVCC nvcc HINTS /usr/local/cuda/bin)
if(NOT NVCC)
  return()
endif()
get_filename_component(toolkit ${NVCC} REALPATH)
get_filename_component(toolkit ${toolkit} DIRECTORY)
get_filename_component(toolkit ${toolkit} DIRECTORY)
find_library(CUBLASLT_LIBRARY cublasLt HINTS ${toolkit}/lib64 ${toolkit}/lib)
find_path(CUBLASLT_INCLUDE cublasLt.h HINTS ${toolkit}/include)
if(NOT CUBLASLT_LIBRARY OR NOT CUBLASLT_INCLUDE)
  return()
endif()

set(XKD_NVCC_FLAGS -std=c++17 -O3 -lineinfo "-DXKD_CUDA_NAME=\"cuda\"" -I${CMAKE_SOURCE_DIR}/src -I${CMAKE_SOURCE_DIR}/include
  -I${CUBLASLT_INCLUDE} -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra)
foreach(architecture ${XKD_CUDA_ARCHITECTURES})
  list(APPEND XKD_NVCC_FLAGS -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET XKD_CUDA_ARCHITECTURES -1 last)
list(APPEND XKD_NVCC_FLAGS -gencode arch=compute_${last},code=compute_${last})

file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS src/backend/cuda/*.cu)
set(CUDA_OBJECTS "")
foreach(source ${CUDA_SOURCES})
  get_filename_component(name ${source} NAME)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  # What ptxas says of registers and spills is kept beside the object (scripts/check-kernels).
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
    COMMAND ${CMAKE_SOURCE_DIR}/scripts/compile-kernels ${object}.ptxas
      ${NVCC} ${XKD_NVCC_FLAGS} -Xptxas -v -MD -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "Building GPU kernels of ${name}" VERBATIM COMMAND_EXPAND_LISTS)
  list(APPEND CUDA_OBJECTS ${object})
endforeach()
set(module ${CMAKE_BINARY_DIR}/libxkd-cuda.so)
add_custom_command(OUTPUT ${module}
  COMMAND ${NVCC} -shared -o ${module} ${CUDA_OBJECTS} ${CUBLASLT_LIBRARY} -Xlinker --no-undefined
  DEPENDS ${CUDA_OBJECTS} COMMENT "Linking libxkd-cuda.so" VERBATIM)
add_custom_target(xkd_cuda ALL DEPENDS ${module})
install(FILES ${module} DESTINATION ${CMAKE_INSTALL_LIBDIR}/xkd)
