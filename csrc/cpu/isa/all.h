// The kernels, in order of dependency; included inside the namespace of an instruction set.
#pragma once

// clang-format off
#include "cpu/isa/vectors.h"
#include "cpu/isa/pack.h"
#include "cpu/isa/convolution_run.h"
#include "cpu/isa/convolution_finish.h"
#include "cpu/isa/convolution_direct.h"
#include "cpu/isa/winograd_transform.h"
#include "cpu/isa/winograd_products.h"
#include "cpu/isa/winograd_finish.h"
#include "cpu/isa/convolution_winograd.h"
#include "cpu/isa/matrix_product.h"
#include "cpu/isa/windows.h"
#include "cpu/isa/convolution.h"
#include "cpu/isa/weight_gradient.h"
#include "cpu/isa/elementwise.h"
#include "cpu/isa/dense.h"
#include "cpu/isa/table.h"
// clang-format on
