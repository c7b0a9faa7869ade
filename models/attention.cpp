// Attention of bfloat16 on CPUs with AVX512-BF16 in one pass: scores never leave the core's caches and are in float32, so
// that nothing but inputs, weights and outputs is rounded. Called by models/attention.py, compiled by pip.
//
// Products take pairs of bfloat16 and add to float32, 32 at once (vdpbf16ps). So the right side is packed: keys by 64,
// a pair of dimensions of each side by side; values by dimension, those of two keys side by side.
//
// Legend: N queries, K keys, D head size, a multiple of 16. Online softmax after Milakov and Gimelshein, arXiv
// 1805.02867; in blocks, Dao et al., arXiv 2205.14135.

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Bfloat16 = std::uint16_t;
using Pair = std::uint32_t;  // two of bfloat16, the first in the lower half
using Index = std::int64_t;

constexpr int kLane = 16;      // of float32 in a register
constexpr int kRows = 24;      // of a tile of queries
constexpr int kKeys = 256;     // of a block of keys: 24 KB of scores
constexpr int kGroup = 64;     // keys that are packed together: four registers
constexpr int kTall = 6;       // rows of a product: 6 * 4 registers of sums, 4 of the right side
constexpr int kWide = 4;       // registers across it
constexpr Index kWorth = 192;  // rows of a head that repay packing its keys once more for another thread
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A buffer on a cache line. Throws std::bad_alloc.
template <typename T>
class Buffer {
  public:
    explicit Buffer(Index count) : data_(static_cast<T*>(::operator new(count * sizeof(T), kAlignment))) {}
    ~Buffer() { ::operator delete(data_, kAlignment); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    T* data() { return data_; }

  private:
    static constexpr std::align_val_t kAlignment{64};
    T* data_;
};

// C [kHeight, 16 * kWidth] (+)= A B. A [rows, 2 * steps] of bfloat16, B [steps, 16 * kWidth] of pairs; `add` keeps what is
// in C. The strides of A and C are of rows, of B of steps.
template <int kHeight, int kWidth>
void Multiply(float* c, Index c_stride, const Bfloat16* a, Index a_stride, const Pair* b, Index b_stride, int steps,
              bool add) {
    __m512 sums[kHeight][kWidth];
#pragma GCC unroll 6
    for (int i = 0; i < kHeight; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < kWidth; ++j)
            sums[i][j] = add ? _mm512_load_ps(c + i * c_stride + j * kLane) : _mm512_setzero_ps();
    for (int step = 0; step < steps; ++step) {
        __m512i right[kWidth];
#pragma GCC unroll 4
        for (int j = 0; j < kWidth; ++j) right[j] = _mm512_load_si512(b + step * b_stride + j * kLane);
#pragma GCC unroll 6
        for (int i = 0; i < kHeight; ++i) {
            std::int32_t pair;
            std::memcpy(&pair, a + i * a_stride + 2 * step, sizeof(pair));
            const __m512i left = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int j = 0; j < kWidth; ++j)
                sums[i][j] = _mm512_dpbf16_ps(sums[i][j], (__m512bh)left, (__m512bh)right[j]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kHeight; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < kWidth; ++j) _mm512_store_ps(c + i * c_stride + j * kLane, sums[i][j]);
}

using Product = void (*)(float*, Index, const Bfloat16*, Index, const Pair*, Index, int, bool);

template <int... kShape>
constexpr auto Products(std::integer_sequence<int, kShape...>) {
    struct Table {
        Product of[kTall * kWide];
    };
    return Table{{&Multiply<kShape / kWide + 1, kShape % kWide + 1>...}};
}

// The product of 1 to kTall rows by 1 to kWide registers.
Product ProductOf(int rows, int registers) {
    static constexpr auto kTable = Products(std::make_integer_sequence<int, kTall * kWide>());
    return kTable.of[(rows - 1) * kWide + registers - 1];
}

// 2^x to 8e-5 of it (a step of bfloat16 is 8e-3): the polynomial is the best of degree 3 in [0, 1), by Remez.
inline __m512 Exp2(__m512 x) {
    const __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
    __m512 p = _mm512_set1_ps(7.80245226e-2f);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(2.26067155e-1f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(6.95833540e-1f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(9.99925219e-1f));
    return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}

// A row's scores become weights 2^(scale * (score - highest)) in bfloat16. `highest` and `sum` are the row's so far and
// become those with these scores, of which there is a multiple of 64. Returns what the row's earlier weights shrink to.
// Not 2^(scale * score - scale * highest) in one instruction: of huge scores it would leave a rest that is above zero.
float Weigh(Bfloat16* weights, const float* scores, int count, float scale, float& highest, float& sum) {
    __m512 top = _mm512_set1_ps(-kInfinity);
    for (int j = 0; j < count; j += kLane) top = _mm512_max_ps(top, _mm512_load_ps(scores + j));
    const float before = highest;
    highest = std::max(before, _mm512_reduce_max_ps(top));
    const __m512 factor = _mm512_set1_ps(scale), zero = _mm512_set1_ps(highest);
    const auto weigh = [&](int j) { return Exp2(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(scores + j), zero), factor)); };
    __m512 sums = _mm512_setzero_ps();
    for (int j = 0; j < count; j += 2 * kLane) {
        const __m512 first = weigh(j), second = weigh(j + kLane);
        sums = _mm512_add_ps(sums, _mm512_add_ps(first, second));
        _mm512_store_si512(weights + j, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
    const float shrunk = highest == before ? 1.0f : std::exp2((before - highest) * scale);
    sum = sum * shrunk + _mm512_reduce_add_ps(sums);
    return shrunk;
}

// [B, H, N, D] in memory; the strides are of B, H and N, those of D are 1.
template <typename T>
struct View {
    T* data;
    Index strides[3];
    T* head(Index pair, Index heads) const { return data + pair / heads * strides[0] + pair % heads * strides[1]; }
};

struct Task {
    View<const Bfloat16> q, k, v;
    View<Bfloat16> out;
    float* lse;  // [B, H, N]
    Index pairs, heads, queries, keys, size;
    bool causal;
};

// What a thread needs for one head.
class Head {
  public:
    explicit Head(const Task& task)
        : task_(task), room_((task.keys + kGroup - 1) / kGroup * kGroup), scale_(M_LOG2E / std::sqrt(task.size)),
          keys_(room_ * task.size / 2), values_(room_ * task.size / 2), scores_(kRows * kKeys),
          weights_(kRows * kKeys), sums_(kRows * task.size) {}

    void Attend(Index pair, Index first, Index last) {
        PackKeys(task_.k.head(pair, task_.heads));
        PackValues(task_.v.head(pair, task_.heads));
        for (Index row = first; row < last; row += kRows) AttendTile(pair, row, std::min<Index>(kRows, last - row));
    }

  private:
    // Keys that are none are zeros.
    void PackKeys(const Bfloat16* keys) {
        const Index half = task_.size / 2;
        for (Index key = 0; key < room_; ++key) {
            Pair* to = keys_.data() + key / kGroup * kGroup * half + key % kGroup;
            const Bfloat16* from = keys + key * task_.k.strides[2];
            for (Index d = 0; d < half; ++d) {
                Pair pair = 0;
                if (key < task_.keys) std::memcpy(&pair, from + 2 * d, sizeof(pair));
                to[d * kGroup] = pair;
            }
        }
    }

    void PackValues(const Bfloat16* values) {
        const auto load = [&](Index key, Index d) {
            if (key >= task_.keys) return _mm512_setzero_si512();
            const Bfloat16* from = values + key * task_.v.strides[2] + d;
            return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
        };
        for (Index key = 0; key < room_; key += 2)
            for (Index d = 0; d < task_.size; d += kLane) {
                const __m512i pairs = _mm512_or_si512(load(key, d), _mm512_slli_epi32(load(key + 1, d), 16));
                _mm512_store_si512(values_.data() + key / 2 * task_.size + d, pairs);
            }
    }

    void AttendTile(Index pair, Index row, int rows) {
        float highest[kRows], sum[kRows] = {};
        std::fill_n(highest, kRows, -kInfinity);
        std::fill_n(sums_.data(), rows * task_.size, 0.0f);
        const Index end = task_.causal ? std::min(task_.keys, row + rows) : task_.keys;
        for (Index key = 0; key < end; key += kKeys) {
            const int count = std::min<Index>(kKeys, (end - key + kGroup - 1) / kGroup * kGroup);
            Score(task_.q.head(pair, task_.heads) + row * task_.q.strides[2], rows, key, count);
            for (int i = 0; i < rows; ++i) {
                float* scores = scores_.data() + i * kKeys;
                const Index seen = std::max<Index>(0, (task_.causal ? std::min(end, row + i + 1) : end) - key);
                if (seen < count) std::fill(scores + seen, scores + count, -kInfinity);
                Shrink(i, Weigh(weights_.data() + i * kKeys, scores, count, scale_, highest[i], sum[i]));
            }
            Add(rows, key, count);
        }
        for (int i = 0; i < rows; ++i) Write(pair, row + i, sums_.data() + i * task_.size, highest[i], sum[i]);
    }

    void Score(const Bfloat16* queries, int rows, Index key, int count) {
        for (int group = 0; group < count; group += kGroup)
            for (int i = 0; i < rows; i += kTall)
                ProductOf(std::min(kTall, rows - i), kWide)(
                    scores_.data() + i * kKeys + group, kKeys, queries + i * task_.q.strides[2], task_.q.strides[2],
                    keys_.data() + (key + group) * task_.size / 2, kGroup, task_.size / 2, false);
    }

    void Shrink(int row, float factor) {
        if (factor == 1.0f) return;
        float* sums = sums_.data() + row * task_.size;
        for (Index d = 0; d < task_.size; ++d) sums[d] *= factor;
    }

    void Add(int rows, Index key, int count) {
        for (int i = 0; i < rows; i += kTall)
            for (Index d = 0; d < task_.size; d += kWide * kLane)
                ProductOf(std::min(kTall, rows - i), std::min<Index>(kWide, (task_.size - d) / kLane))(
                    sums_.data() + i * task_.size + d, task_.size, weights_.data() + i * kKeys, kKeys,
                    values_.data() + key / 2 * task_.size + d, task_.size, count / 2, true);
    }

    void Write(Index pair, Index row, const float* sums, float highest, float sum) {
        Bfloat16* to = task_.out.head(pair, task_.heads) + row * task_.out.strides[2];
        const __m512 inverse = _mm512_set1_ps(1.0f / sum);
        for (Index d = 0; d < task_.size; d += kLane) {
            const __m512 mean = _mm512_mul_ps(inverse, _mm512_load_ps(sums + d));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + d), (__m256i)_mm512_cvtneps_pbh(mean));
        }
        task_.lse[pair * task_.queries + row] = (highest * scale_ + std::log2(sum)) * static_cast<float>(M_LN2);
    }

    const Task& task_;
    const Index room_;  // keys and zeros, whole groups
    const float scale_;  // of scores, in units of log 2
    Buffer<Pair> keys_, values_;
    Buffer<float> scores_;
    Buffer<Bfloat16> weights_;
    Buffer<float> sums_;
};

}  // namespace

// 0, or -1 where memory was too little. `strides` are those of q, k, v and out.
extern "C" __attribute__((visibility("default"))) int dsr_attention(
    const Bfloat16* q, const Bfloat16* k, const Bfloat16* v, Bfloat16* out, float* lse, const Index* shape,
    const Index* strides, int causal, int threads) {
    const auto [batch, heads, queries, keys, size] = reinterpret_cast<const Index(&)[5]>(*shape);
    const auto by = [&](int which) { return strides + 3 * which; };
    const Task task{{q, {by(0)[0], by(0)[1], by(0)[2]}},   {k, {by(1)[0], by(1)[1], by(1)[2]}},
                    {v, {by(2)[0], by(2)[1], by(2)[2]}},   {out, {by(3)[0], by(3)[1], by(3)[2]}},
                    lse, batch * heads, heads, queries, keys, size, causal != 0};
    // A head's rows are shared out where there are fewer heads than threads keep busy.
    const Index wanted = threads == 1 ? 1 : (2 * threads + task.pairs - 1) / task.pairs;
    const Index parts = std::clamp<Index>(queries / kWorth, 1, wanted);
    std::atomic<Index> next{0};
    std::atomic<bool> failed{false};
    const auto work = [&] {
        try {
            Head head(task);
            for (Index unit; (unit = next++) < task.pairs * parts && !failed;) {
                const Index part = unit % parts;
                head.Attend(unit / parts, queries * part / parts, queries * (part + 1) / parts);
            }
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    };
    std::vector<std::thread> others;
    try {
        const Index most = std::min<Index>(threads, task.pairs * parts);
        others.reserve(most);
        while (static_cast<Index>(others.size()) + 1 < most) others.emplace_back(work);
    } catch (const std::system_error&) {
        // As many as there are do it.
    } catch (const std::bad_alloc&) {
        failed = true;
    }
    work();
    for (auto& other : others) other.join();
    return failed ? -1 : 0;
}
