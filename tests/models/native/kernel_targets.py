"""Processors that the kernels are compiled for, and in which ways."""

from pathlib import Path

from .kernel_program import Target

AARCH64 = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RACES = ("-O1", "-g", "-fsanitize=thread")
AVX2 = ("avx2", "fma")
STEPS = ("-include", str(Path(__file__).with_name("driver") / "avx512_bf16.h"))
AVX512 = (*AVX2, "avx512f", "avx512vl", "avx512bw", "avx512dq")

TARGETS = {
    "avx512_bf16 in steps": Target("g++", ("-O1", "-march=haswell", *STEPS), AVX2),
    "avx2": Target("g++", ("-O3", "-march=haswell"), AVX2),
    "aarch64": Target("aarch64-linux-gnu-g++", ("-O1",), runner=AARCH64),
}
SLOW_TARGETS = {
    "aarch64 optimised": Target("aarch64-linux-gnu-g++", ("-O3",), runner=AARCH64),
    "avx512": Target("g++", ("-O3", "-march=skylake-avx512"), AVX512),
    "native": Target("g++", ("-O3", "-march=native")),
    "sse2": Target("g++", ("-O3", "-march=x86-64")),
    "avx2 by clang": Target("clang++", ("-O3", "-march=haswell"), AVX2),
    "avx2 sanitized": Target("g++", (*SANITIZED, "-march=haswell"), AVX2),
    "avx512 sanitized": Target("g++", (*SANITIZED, "-march=skylake-avx512"), AVX512),
    "native sanitized": Target("g++", (*SANITIZED, "-march=native")),
    "avx2 races": Target("g++", (*RACES, "-march=haswell"), AVX2),
}
