"""What launches of CUDA kernels do where the runtime fails: csrc against a runtime of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import build_support

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = r"""
#include <iostream>

#include "cuda/convolution/launch.h"

int loaded = 0;  // what the code is for that the device has
template <>
int sspcab::cuda::sm80_loaded_capability<sspcab::cuda::Arithmetic::Half>() {
  return loaded;
}

#include "cuda/host/device.h"
#include "cuda/launch.cuh"

using namespace sspcab::cuda;

bool sspcab::cuda::runs_sm90(int capability) { return capability == 90; }

cudaError_t next = cudaSuccess;  // of the next question about a kernel

extern "C" {
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidValue ? "invalid" : "unsuitable";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = 90;
  return std::exchange(next, cudaSuccess);
}
}

template <class Body>
void tell(const Body& body) {
  try {
    std::cout << body() << "\n";
  } catch (const std::exception& error) {
    std::cout << error.what() << "\n";
  }
}

int main() {
  const int kernel = 0;
  next = cudaErrorInvalidValue;
  for (int i = 0; i < 3; ++i) tell([&] { return waits_for_earlier_launches(&kernel); });
  for (const auto error : {cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction,
                           cudaErrorUnsupportedPtxVersion}) {
    tell([&] { return check_cuda(error, "launch"), 0; });
  }
  for (const int config : {2, 3}) {
    tell([&] {
      int found = -1;
      with_config(config, [&](auto constant) { found = constant; });
      return found;
    });
  }
  for (const int processors : {1, 5}) std::cout << persistent_blocks(8, processors, 2) << "\n";
  for (const int capability : {75, 80, 90}) {
    loaded = capability;
    std::cout << current_device().capability << " " << current_device().runs_sm90 << "\n";
  }
}
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What PROGRAM prints."""
    compiler = shutil.which("c++")
    if not compiler or not torch.version.cuda:
        pytest.skip("needs a C++ compiler and a CUDA build of PyTorch")
    candidates = build_support.toolkit_candidates(os.environ, sys.path, shutil.which)
    try:
        home = build_support.find_toolkit(candidates, torch.version.cuda).home
    except build_support.BuildError as error:
        pytest.skip(str(error))
    program = tmp_path_factory.mktemp("launch") / "program"
    includes = ["-I", str(ROOT / "csrc"), "-isystem", str(home / "include")]
    command = [compiler, "-std=c++20", *includes, "-x", "c++", "-", "-o", str(program)]
    subprocess.run(command, input=PROGRAM, text=True, check=True)
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_failed_question_is_asked_again(lines: list[str]) -> None:
    """And an answer is kept."""
    assert lines[:3] == ["sspcab: launch: invalid", "1", "1"]


def test_errors_of_a_build_for_other_devices_say_what_to_do(lines: list[str]) -> None:
    remedy = "rebuild with this device's architecture in TORCH_CUDA_ARCH_LIST"
    lacking = f"sspcab: launch: unsuitable. This build has no kernels for this device: {remedy}"
    assert lines[3:5] == [lacking, lacking]
    assert lines[5] == (
        "sspcab: launch: unsuitable. This build has no kernels for this device but as PTX, which "
        f"is newer than the driver: update the driver, or {remedy}"
    )


def test_tiles_without_kernels(lines: list[str]) -> None:
    assert lines[6:8] == ["2", "sspcab: tiles have the numbers 0 to 2; got 3"]


def test_a_persistent_grid_is_of_whole_clusters(lines: list[str]) -> None:
    """One at least, however few processors there are."""
    assert lines[8:10] == ["2", "4"]


def test_a_device_can_what_the_code_that_it_has_loaded_can(lines: list[str]) -> None:
    """One of 9.0, of code for it and for older ones: what lacks a path may not be taken for it."""
    assert lines[10:] == ["75 0", "80 0", "90 1"]
