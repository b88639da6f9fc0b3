// The kernels, in order of dependency; included inside the namespace of an instruction set.
#pragma once

// clang-format off
#include "cpu/isa/vectors.h"
#include "cpu/isa/convolution/pack.h"
#include "cpu/isa/convolution/run.h"
#include "cpu/isa/convolution/finish.h"
#include "cpu/isa/convolution/direct.h"
#include "cpu/isa/convolution/winograd_transform.h"
#include "cpu/isa/convolution/winograd_products.h"
#include "cpu/isa/convolution/winograd_finish.h"
#include "cpu/isa/convolution/winograd.h"
#include "cpu/isa/convolution/matrix_product.h"
#include "cpu/isa/convolution/windows.h"
#include "cpu/isa/convolution/convolution.h"
#include "cpu/isa/convolution/weight_gradient.h"
#include "cpu/isa/passes/elementwise.h"
#include "cpu/isa/passes/dense.h"
#include "cpu/isa/table.h"
// clang-format on
