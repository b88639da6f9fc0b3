// How a call convolves: which of the three ways (way.h), in which groups of samples, bands of rows
// and tiles of output channels, by how many threads. A pure function of the problem and of the
// processor, asked once in a call; knows no torch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/geometry/way.h"
#include "cpu/geometry/winograd.h"
#include "cpu/geometry/image.h"
#include "geometry.h"

namespace sspcab::cpu {

struct Problem {
  Sample sample;
  SubKernels sub_kernels;
  int64_t samples;
  int64_t element_bytes;  // of the arithmetic
  bool converts;          // elements in memory are of another type
  int64_t config = kAutomatic;
};

struct Processor {
  int64_t threads;
  int64_t lanes;  // of a vector of the arithmetic's type
};

// What each way takes, in products of one input and one output channel for all samples.
struct Costs {
  double direct, winograd, windows;

  Way cheapest() const {
    if (windows < std::min(direct, winograd)) return Way::windows;
    return winograd < direct ? Way::winograd : Way::direct;
  }
};
Costs costs_of(const Problem&, const Processor&);

// Rows of every sample in equal bands.
struct Bands {
  int64_t height, per_sample;

  Rows rows(int64_t band) const {
    return {height * band / per_sample, height * (band + 1) / per_sample};
  }

  // As few bands as keep all threads busy, each of a few pixels at least and at most `most_rows`
  // rows.
  static Bands choose(const Sample&, int64_t samples, int64_t threads, int64_t most_rows);
};

class Plan {
 public:
  Plan(const Problem&, const Processor&);

  const Problem problem;
  const Costs costs;
  const Way way;
  const int64_t threads;
  const int64_t tiles;  // of output channels
  // Channels_last memory is read where it lies rather than packed into a blocked image.
  const bool reads_in_place;
  // Samples are worked off in groups whose tensors stay in the last-level cache from one stage to
  // the next.
  const int64_t samples_of_group;

  const Sample& sample() const { return problem.sample; }
  const SubKernels& sub_kernels() const { return problem.sub_kernels; }

  // Of a group of samples.
  Bands bands(int64_t samples) const;
  // In how many parts the tiles of a band are divided: only where threads would wait otherwise, as
  // all parts need the whole input.
  int64_t parts(int64_t samples, const Bands&) const;
  // Whether all of the group's input is packed at once: where bands overlap much.
  bool packs_all(const Bands&, int64_t parts) const;

  // Of a band, in the units of the way: rows or, with Winograd, pairs of rows.
  Rows rows(const Bands&, int64_t band) const;
  // What such a band reads of the input.
  Rows rows_read(Rows rows) const;
  int64_t most_rows_read(const Bands&) const;

  // What the sub-kernels are packed into, once in a call, and what the windows of a group are
  // gathered into; 0 where the way has none.
  int64_t panel_bytes() const;
  int64_t gathered_bytes(int64_t samples) const;

 private:
  double idle(int64_t samples, const Bands&, int64_t parts) const;
  bool winograds() const { return way == Way::winograd; }

  const Winograd winograd_;
};

// body(first sample, count) for every group of a batch that is not empty.
template <class Body>
void for_each_group(const Plan& plan, const Body& body) {
  if (plan.sample().numel() == 0) return;
  const int64_t samples = plan.problem.samples, group = plan.samples_of_group;
  for (int64_t first = 0; first < samples; first += group) {
    body(first, std::min(group, samples - first));
  }
}

}  // namespace sspcab::cpu
