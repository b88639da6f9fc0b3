// Vectors of the instruction set at hand: loads and stores with conversion, and transposition.
// Arithmetic is the compiler's own vector arithmetic, so one text serves every processor.
#pragma once

template <class T>
struct VectorType {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorType<T>::type;

template <class T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

template <class T>
inline double sum_of_lanes(Vector<T> v) {
  double sum = 0;
  for (int64_t i = 0; i < kLanes<T>; ++i) sum += v[i];
  return sum;
}

// How many lanes of a vector lie inside the array.
struct Full {};
struct Partial {
  int64_t count;
};

// body(offset, Full or Partial) for every vector of an array.
template <class T, class Body>
inline void for_each_vector(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) body(i, Full{});
  if (i < count) body(i, Partial{count - i});
}

typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t FloatBits __attribute__((vector_size(kVectorBytes)));

template <class D>
struct Element {
  static Vector<D> load(const D* p) {
    return *reinterpret_cast<const typename VectorType<D>::unaligned*>(p);
  }
  static void store(D* p, Vector<D> v) {
    *reinterpret_cast<typename VectorType<D>::unaligned*>(p) = v;
  }
};

template <>
struct Element<BFloat16> {
  static Vector<float> load(const BFloat16* p) {
    HalfBits bits;
    memcpy(&bits, p, sizeof(bits));
    return (Vector<float>)(__builtin_convertvector(bits, FloatBits) << 16);
  }
  static void store(BFloat16* p, Vector<float> v) {
    const FloatBits bits = (FloatBits)v;
    const FloatBits nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const FloatBits is_nan = (FloatBits)(v != v);
    const HalfBits result =
        __builtin_convertvector((nearest_even & ~is_nan) | (is_nan & 0x7fc0u), HalfBits);
    memcpy(p, &result, sizeof(result));
  }
};

template <>
struct Element<Half> {
#if defined(SSPCAB_HALF_CONVERSION)
  static Vector<float> load(const Half* p) { return half_to_float(p); }
  static void store(Half* p, Vector<float> v) { float_to_half(v, p); }
#else
  static Vector<float> load(const Half* p) {
    Vector<float> v;
    for (int64_t i = 0; i < kLanes<float>; ++i) v[i] = static_cast<float>(p[i]);
    return v;
  }
  static void store(Half* p, Vector<float> v) {
    for (int64_t i = 0; i < kLanes<float>; ++i) p[i] = static_cast<Half>(v[i]);
  }
#endif
};

#if !defined(SSPCAB_PARTS)
// `count` elements of an array into the first lanes of a vector, the others 0, and back.
template <class D>
inline void load_part(const D* p, int64_t count, D* lanes) {
  memset(static_cast<void*>(lanes), 0, kLanes<Compute<D>> * sizeof(D));
  memcpy(static_cast<void*>(lanes), p, count * sizeof(D));
}
template <class D>
inline void store_part(const D* lanes, int64_t count, D* p) {
  memcpy(static_cast<void*>(p), lanes, count * sizeof(D));
}
#endif

template <class D>
inline Vector<Compute<D>> load(const D* p, Full = {}) {
  return Element<D>::load(p);
}
// Lanes outside the array are 0.
template <class D>
inline Vector<Compute<D>> load(const D* p, Partial width) {
  D lanes[kLanes<Compute<D>>];
  load_part(p, width.count, lanes);
  return Element<D>::load(lanes);
}
template <class D>
inline void store(D* p, Vector<Compute<D>> v, Full = {}) {
  Element<D>::store(p, v);
}
template <class D>
inline void store(D* p, Vector<Compute<D>> v, Partial width) {
  D lanes[kLanes<Compute<D>>];
  Element<D>::store(lanes, v);
  store_part(lanes, width.count, p);
}

template <class T>
inline Vector<T> inside(Vector<T> v, Full) {
  return v;
}
// v with 0 in the lanes outside the array.
template <class T>
inline Vector<T> inside(Vector<T> v, Partial width) {
  for (int64_t i = width.count; i < kLanes<T>; ++i) v[i] = 0;
  return v;
}

// Adds to totals that long sums end in: float32 would lose digits.
template <class T>
inline void add_to(double* totals, Vector<T> v, Full) {
  for (int64_t i = 0; i < kLanes<T>; ++i) totals[i] += v[i];
}
template <class T>
inline void add_to(double* totals, Vector<T> v, Partial width) {
  for (int64_t i = 0; i < width.count; ++i) totals[i] += v[i];
}

// Where not (a <= 0) the value, otherwise 0: a NaN in `a` lets the value pass, as PyTorch's ReLU
// and its gradient do.
template <class T>
inline Vector<T> where_active(Vector<T> a, Vector<T> value) {
  return a <= Vector<T>{} ? Vector<T>{} : value;
}

// One stage exchanges the off-diagonal halves of all (2·Step)×(2·Step) squares.
template <class T, int Step, int... Lane>
inline void transpose_stage(Vector<T>* rows, std::integer_sequence<int, Lane...>) {
  constexpr int lanes = sizeof...(Lane);
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    if (i & Step) continue;
    const Vector<T> a = rows[i], b = rows[i + Step];
    rows[i] = __builtin_shufflevector(a, b, (Lane & Step ? lanes + Lane - Step : Lane)...);
    rows[i + Step] = __builtin_shufflevector(a, b, (Lane & Step ? lanes + Lane : Lane + Step)...);
  }
}

// Transposes a square of kLanes rows in registers.
template <class T, int Step = kLanes<T> / 2>
inline void transpose(Vector<T>* rows) {
  if constexpr (Step > 0) {
    transpose_stage<T, Step>(rows, std::make_integer_sequence<int, kLanes<T>>{});
    transpose<T, Step / 2>(rows);
  }
}
