# Ballast. `make help` lists the targets; every library is looked for and one line says what was found.
#
# Variants stand side by side: build/release, build/asan, build/tsan (make VARIANT=asan).

VARIANT ?= release
BUILD   := build/$(VARIANT)
CC      ?= gcc
PYTHON  ?= /usr/bin/python3
MARCH   ?= native
CUDA_HOME ?= /usr/local/cuda
NVCC_ARCH ?= 90
NVCC    ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc 2>/dev/null))

# -- what the machine has ---------------------------------------------------------------------------------------------
can_link = $(shell echo 'int main(void){return 0;}' | $(CC) -x c - -o /dev/null $(1) >/dev/null 2>&1 && echo 1)
has_header = $(shell echo '\#include <$(1)>' | $(CC) $(2) -x c -E - >/dev/null 2>&1 && echo 1)
has_lib = $(and $(call has_header,$(1),$(3)),$(call can_link,$(2)))

HAVE_ZLIB     := $(call has_lib,zlib.h,-lz)
HAVE_CJSON    := $(call has_lib,cjson/cJSON.h,-lcjson)
GLPK     ?= $(if $(call has_lib,glpk.h,-lglpk),1,0)
OPENBLAS ?= $(if $(call has_lib,cblas.h,-lopenblas),1,0)
CUDA     ?= $(if $(and $(NVCC),$(filter release,$(VARIANT))),1,0)
NCCL     ?= $(if $(wildcard $(CUDA_HOME)/include/nccl.h /usr/include/nccl.h),1,0)
MPICC    ?= $(shell command -v mpicc 2>/dev/null)
MPI      ?= $(if $(MPICC),1,0)

# -- flags ------------------------------------------------------------------------------------------------------------
comma  := ,
WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
OPT_release := -O3 -g -march=$(MARCH)
OPT_asan := -O1 -g -march=$(MARCH) -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan := -O1 -g -march=$(MARCH) -fsanitize=thread -fno-omit-frame-pointer
CFLAGS  += -std=c11 -D_GNU_SOURCE -ffp-contract=off $(WARN) $(OPT_$(VARIANT)) -I. -MMD -MP
LDFLAGS += $(filter -fsanitize%,$(OPT_$(VARIANT)))
LIBS    := -lcjson -lz -lm -lpthread

# -- sources: a file belongs to the folder it lies in -----------------------------------------------------------------
SRC_base      := $(wildcard base/*.c)
SRC_traces    := $(filter-out traces/main.c traces/command_%.c,$(wildcard traces/*.c))
SRC_trace_cmd := $(wildcard traces/command_*.c)
SRC_costmodel := $(wildcard costmodel/*.c)
SRC_planner   := $(filter-out planner/main.c planner/command_%.c,$(wildcard planner/*.c)) \
                 $(wildcard planner/place/*.c planner/baselines/*.c planner/passes/*.c planner/search/*.c)
SRC_plan_cmd  := $(wildcard planner/command_*.c)
SRC_milp      := $(wildcard planner/milp/*.c)
SRC_library   := $(wildcard planner/library/*.c)
SRC_executor  := $(filter-out %_main.c,$(wildcard executor/*.c)) $(wildcard executor/cpu/*.c) \
                 $(filter-out executor/transport/mpi.c executor/transport/nccl.c,$(wildcard executor/transport/*.c))

SRC_cuda      := $(wildcard executor/cuda/*.cu) $(if $(filter 1,$(NCCL)),executor/transport/nccl.cu)

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
CUDA_OBJECTS := $(patsubst %.cu,$(BUILD)/%.o,$(SRC_cuda))

BASE    := $(call obj,$(SRC_base) $(SRC_traces) $(SRC_costmodel))
PLANNER := $(call obj,$(SRC_planner))
MILP    := $(call obj,$(SRC_plan_cmd) $(SRC_milp))
EXEC    := $(call obj,$(SRC_executor)) $(if $(filter 1,$(CUDA)),$(CUDA_OBJECTS))

# The library's objects are position independent, and of them only what its functions need goes into the shared one.
LIBRARY    := $(patsubst %.c,$(BUILD)/pic/%.o,$(SRC_base) $(SRC_traces) $(SRC_costmodel) $(SRC_planner) $(SRC_library))
LIBRARY_NO := $(shell sed -n 's/^.define BALLAST_VERSION_M[AI][JN]OR \([0-9]*\).*/\1/p' planner/ballast.h | paste -sd.)
LIBRARY_SO := libballast.so.$(firstword $(subst ., ,$(LIBRARY_NO)))
LIBRARIES  := $(BUILD)/libballast.a $(BUILD)/$(LIBRARY_SO)

PROGRAMS := $(if $(wildcard traces/main.c),$(BUILD)/ballast-trace) \
            $(if $(wildcard planner/main.c),$(BUILD)/ballast-plan) \
            $(if $(wildcard executor/train_main.c),$(BUILD)/ballast-train) \
            $(if $(wildcard executor/profile_main.c),$(BUILD)/ballast-profile) \
            $(if $(filter 1,$(MPI)),$(BUILD)/ballast-mpi.so)

GLPK_FLAGS := $(if $(filter 1,$(GLPK)),-DBL_HAVE_GLPK)
GLPK_LIBS  := $(if $(filter 1,$(GLPK)),-lglpk)
BLAS_FLAGS := $(if $(filter 1,$(OPENBLAS)),-DBL_HAVE_OPENBLAS)
BLAS_LIBS  := $(if $(filter 1,$(OPENBLAS)),-lopenblas)
CUDA_FLAGS := $(if $(filter 1,$(CUDA)),-DBL_HAVE_CUDA $(if $(filter 1,$(NCCL)),-DBL_HAVE_NCCL))
# The runtime is linked in, cuBLAS is loaded when a backend is created: programs start, and train on the CPU, without CUDA.
CUDA_LIBS  := $(if $(filter 1,$(CUDA)),-L$(CUDA_HOME)/lib64 -Wl$(comma)-rpath$(comma)$(CUDA_HOME)/lib64 -lcudart_static \
                -lstdc++ -ldl -lrt)
# MPI is loaded too, from beside the program, where ranks are processes; it uses the functions of the program. (Of the two
# ways to say where it lies, the older one, which also holds where a sanitizer stands between.)
MPI_LIBS   := -Wl$(comma)--export-dynamic -Wl$(comma)--disable-new-dtags -Wl$(comma)-rpath$(comma)\$$ORIGIN -Wl$(comma)-rpath$(comma)\$$ORIGIN/../.. -ldl
EXEC_LIBS  := $(BLAS_LIBS) $(CUDA_LIBS) $(MPI_LIBS)
NVCCFLAGS  += -std=c++17 -O3 -lineinfo $(foreach arch,$(NVCC_ARCH),-gencode arch=compute_$(arch),code=[sm_$(arch),compute_$(arch)]) \
              -Werror all-warnings -Xcompiler -Wall,-Wextra,-Wshadow,-Wconversion,-Werror -I.

# -- targets ----------------------------------------------------------------------------------------------------------
.PHONY: all programs tests bench lint format clean help found
all: found programs

## help: this list
help:
	@echo "make [VARIANT=release|asan|tsan] [GLPK=0] [OPENBLAS=0] [CUDA=0] [MPI=0] [TARGET]"
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | sed 's/^/  /'

yes_no = $(if $(filter 1,$(1)),yes,no $(2))
found:
	@echo "zlib      $(call yes_no,$(HAVE_ZLIB),(needed: zlib1g-dev))"
	@echo "cJSON     $(call yes_no,$(HAVE_CJSON),(needed: libcjson-dev))"
	@echo "GLPK      $(call yes_no,$(GLPK),(no proofs by place --prove))"
	@echo "OpenBLAS  $(call yes_no,$(OPENBLAS),(needed only for MARCH without fused multiply-adds))"
	@echo "nvcc      $(call yes_no,$(CUDA),(CPU backend only))"
	@echo "NCCL      $(call yes_no,$(NCCL),(no nccl transport))"
	@echo "MPI       $(call yes_no,$(MPI),(no mpi transport))"

## programs: the programs of this variant, in build/VARIANT/
programs: $(PROGRAMS) $(LIBRARIES)

$(BUILD)/ballast-trace: $(BUILD)/traces/main.o $(call obj,$(SRC_trace_cmd)) $(BASE)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/ballast-plan: $(BUILD)/planner/main.o $(BASE) $(PLANNER) $(MILP)
	$(CC) $(LDFLAGS) -o $@ $^ $(GLPK_LIBS) $(LIBS)
$(BUILD)/ballast-train: $(BUILD)/executor/train_main.o $(BASE) $(PLANNER) $(EXEC)
	$(CC) $(LDFLAGS) -o $@ $^ $(EXEC_LIBS) $(LIBS)
$(BUILD)/ballast-profile: $(BUILD)/executor/profile_main.o $(BASE) $(PLANNER) $(EXEC)
	$(CC) $(LDFLAGS) -o $@ $^ $(EXEC_LIBS) $(LIBS)

# mpicc names the compiler it was made for; ours is asked for instead (Open MPI and MPICH know one of these each).
$(BUILD)/ballast-mpi.so: executor/transport/mpi.c $(BUILD)/flags
	@mkdir -p $(@D)
	OMPI_CC='$(CC)' MPICH_CC='$(CC)' $(MPICC) $(CFLAGS) -MF $(@:.so=.d) -MT $@ $(LDFLAGS) -fPIC -shared -o $@ $<

## library: libballast.a and libballast.so of this variant
.PHONY: library
library: $(LIBRARIES)
$(BUILD)/pic/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections -c -o $@ $<
$(BUILD)/libballast.a: $(LIBRARY)
	rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/$(LIBRARY_SO): $(LIBRARY)
	$(CC) $(LDFLAGS) -shared -Wl,-soname,$(LIBRARY_SO) -Wl,--gc-sections,-z,relro,-z,now \
	  $(if $(filter release,$(VARIANT)),-Wl$(comma)-z$(comma)defs) -o $@ $(LIBRARY) $(LIBS)

## install: programs, library, header and pkg-config file, under PREFIX (/usr/local)
PREFIX ?= /usr/local
.PHONY: install
install: programs
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 planner/ballast.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(LIBRARIES) $(DESTDIR)$(PREFIX)/lib
	ln -sf $(LIBRARY_SO) $(DESTDIR)$(PREFIX)/lib/libballast.so
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' 'Name: ballast' \
	  'Description: placement of experts and layouts for Mixture-of-Experts training' 'Version: $(LIBRARY_NO)' \
	  'Libs: -L$${libdir} -lballast' 'Libs.private: $(LIBS)' 'Cflags: -I$${includedir}' \
	  >$(DESTDIR)$(PREFIX)/lib/pkgconfig/ballast.pc

$(BUILD)/planner/milp/%.o: CFLAGS += $(GLPK_FLAGS)
$(BUILD)/planner/command_%.o: CFLAGS += $(GLPK_FLAGS)
$(BUILD)/executor/%.o $(BUILD)/tests/exec/%.o $(BUILD)/tests/bench/exec_%.o: CFLAGS += $(BLAS_FLAGS) $(CUDA_FLAGS)
# No value changes: sqrtf() need not set errno, nor comparisons keep exception flags, so that loops with them vectorise.
$(BUILD)/executor/cpu/%.o: CFLAGS += -fno-math-errno -fno-trapping-math

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<
$(BUILD)/%.o: %.cu $(BUILD)/nvcc_flags
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

# Changes when the compiler or a switch does (GLPK=0, OPENBLAS=0...), and with it everything is built again.
ALL_FLAGS := $(CC) $(CFLAGS) $(GLPK_FLAGS) $(BLAS_FLAGS) $(CUDA_FLAGS) $(GLPK_LIBS) $(EXEC_LIBS)
$(BUILD)/flags: ALWAYS
	@mkdir -p $(@D)
	@echo '$(ALL_FLAGS)' | cmp -s - $@ || echo '$(ALL_FLAGS)' > $@
$(BUILD)/nvcc_flags: ALWAYS
	@mkdir -p $(@D)
	@echo '$(NVCC) $(NVCCFLAGS)' | cmp -s - $@ || echo '$(NVCC) $(NVCCFLAGS)' > $@

## cuda-check: compiles the CUDA backend for sm_80, sm_90 and sm_100, in build/cuda-check/
.PHONY: cuda-check cuda-objects
cuda-check:
	$(MAKE) --no-print-directory BUILD=build/cuda-check NVCC_ARCH="80 90 100" cuda-objects
cuda-objects: $(CUDA_OBJECTS)
.PHONY: ALWAYS

# The CUDA backend for the processor, with sanitizers and the stand-ins of tests/exec/cuda_shim, and what it is compared
# with: tests/cli/cuda_emulated.sh links these.
SHIM_SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
SHIM_SOURCES  := $(filter-out executor/cuda/cublas.cu,$(wildcard executor/cuda/*.cu)) executor/transport/nccl.cu \
                 tests/exec/cuda_shim/shim.cpp $(wildcard executor/cpu/*.c) executor/ops.c executor/quotas.c planner/place/hosts.c base/memory.c executor/open_backend.c \
                 executor/open_transport.c base/status.c base/rng.c tests/exec/test_cuda_ops.c
SHIM_CXX := $(CXX) -std=c++17 -O2 -g $(SHIM_SANITIZE) -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas -Werror -I. \
            -Itests/exec/cuda_shim -DBL_CUDA_SEGMENT_BYTES=2048 -MMD -MP
.PHONY: cuda-shim
cuda-shim: $(SHIM_SOURCES:%=$(BUILD)/shim/%.o) $(BUILD)/shim/libnccl.so.2
$(BUILD)/shim/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -O2 -g $(SHIM_SANITIZE) -ffp-contract=off -march=native -I. -DBL_HAVE_CUDA -DBL_HAVE_NCCL \
	  -DBL_CUDA_SHIM -MMD -MP -c -o $@ $<
$(BUILD)/shim/%.o: %
	@mkdir -p $(@D)
	$(SHIM_CXX) -x c++ -c -o $@ $<
$(BUILD)/shim/libnccl.so.2: tests/exec/cuda_shim/nccl_shim.cpp
	@mkdir -p $(@D)
	$(SHIM_CXX) -x c++ -shared -fPIC -o $@ $<

# Tests in C: tests/unit/test_*.c link base to planner; tests/unit/milp_*.c also the solver; tests/exec/test_*.c the
# executor; bench/*.c under tests/ likewise by prefix.
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
MILP_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/milp_*.c))
EXEC_TESTS := $(patsubst tests/exec/%.c,$(BUILD)/tests/exec/%,$(wildcard tests/exec/test_*.c))
BENCHES    := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(wildcard tests/bench/plan_*.c tests/bench/exec_*.c))

## tests: builds the C test programs (tests/run runs them)
tests: programs $(UNIT_TESTS) $(MILP_TESTS) $(EXEC_TESTS) $(if $(filter release,$(VARIANT)),$(BENCHES))
$(UNIT_TESTS): $(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(BASE) $(PLANNER)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(MILP_TESTS): $(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(BASE) $(PLANNER) $(MILP)
	$(CC) $(LDFLAGS) -o $@ $^ $(GLPK_LIBS) $(LIBS)
$(EXEC_TESTS): $(BUILD)/tests/exec/%: $(BUILD)/tests/exec/%.o $(BASE) $(PLANNER) $(EXEC)
	$(CC) $(LDFLAGS) -o $@ $^ $(EXEC_LIBS) $(LIBS)
$(BUILD)/tests/bench/plan_%: $(BUILD)/tests/bench/plan_%.o $(BASE) $(PLANNER)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/tests/bench/exec_%: $(BUILD)/tests/bench/exec_%.o $(BASE) $(PLANNER) $(EXEC)
	$(CC) $(LDFLAGS) -o $@ $^ $(EXEC_LIBS) $(LIBS)

## bench: measures against a peer in the same run; a table and build/bench.json
bench: programs $(BENCHES)
	$(PYTHON) tests/bench/run.py --build $(BUILD) --json build/bench.json

C_SOURCES := $(SRC_base) $(SRC_traces) $(SRC_trace_cmd) $(SRC_costmodel) $(SRC_planner) $(SRC_library) $(SRC_plan_cmd) $(SRC_milp) $(SRC_executor) \
             $(wildcard traces/main.c planner/main.c executor/*_main.c)

## device: build/device/folder, which runs on a machine with a device and no libraries (tests/device/run.sh says how)
.PHONY: device
device:
	$(MAKE) --no-print-directory BUILD=build/device GLPK=0 OPENBLAS=0 MPI=0 MARCH=x86-64-v3 'LDFLAGS=-Wl,-rpath,\$$$$ORIGIN/../lib' \
	  programs build/device/tests/exec/test_cuda_ops build/device/tests/bench/exec_attention
	tests/device/pack.sh build/device build/device/folder

## lint: cppcheck and clang-tidy over all C sources, where installed
lint:
	@if command -v cppcheck >/dev/null; then \
	  cppcheck --quiet --std=c11 --enable=warning,performance --inline-suppr --suppress=missingIncludeSystem \
	    --suppress=uninitvar --error-exitcode=1 -I. $(C_SOURCES) && echo "cppcheck: nothing to say"; \
	else echo "cppcheck is not installed: skipped"; fi
	@if command -v clang-tidy >/dev/null; then \
	  printf '%s\n' $(C_SOURCES) | xargs -P 2 -I FILE clang-tidy --quiet FILE -- -std=c11 -D_GNU_SOURCE $(GLPK_FLAGS) \
	    $(BLAS_FLAGS) -I. 2>/dev/null && echo "clang-tidy: nothing to say"; \
	else echo "clang-tidy is not installed: skipped"; fi

## format: clang-format over all C sources
format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cu')

## clean: removes build/
clean:
	rm -rf build

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.SECONDARY:
