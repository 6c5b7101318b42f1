# The suffix of a kernel file's name is its ISA level, and chooses the compiler flags.
set(ZQ_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(ZQ_FLAGS_avxvnni ${ZQ_FLAGS_avx2} -mavxvnni)
set(ZQ_FLAGS_avx512vnni ${ZQ_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni)
set(ZQ_FLAGS_avx512bf16 ${ZQ_FLAGS_avx512vnni} -mavx512bf16)
set(ZQ_FLAGS_amx ${ZQ_FLAGS_avx512bf16} -mamx-tile -mamx-int8 -mamx-bf16)
set(ZQ_FLAGS_dotprod -march=armv8.2-a+dotprod)
set(ZQ_FLAGS_i8mm -march=armv8.2-a+dotprod+i8mm)

# Sets the flags of those files of a list whose names end in a level.
function(zq_isa_flags sources)
  foreach(source ${sources})
    string(REGEX REPLACE "^.*_([a-z0-9]+)\\.c$" "\\1" level "${source}")
    if(DEFINED ZQ_FLAGS_${level})
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${ZQ_FLAGS_${level}}")
    endif()
  endforeach()
endfunction()
