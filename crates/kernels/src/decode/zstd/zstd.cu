// zstd frames to bytes (RFC 8878). The host has read the headers (mod.rs); blocks of a frame are decoded in two steps.
//
// 1. `zstd_entropy`: literals and sequences of all blocks at once. Each of a block's four Huffman streams is one thread's, and so is its
//    chain of sequences: each bit that is read depends on the one before. Four blocks share a warp, because more tables than theirs leave
//    too few warps on a multiprocessor. Chains and literals are taken by different warps of one launch.
//    What a chain writes of each sequence is where its match starts, so nothing has to be summed up later. An offset that is one of those
//    that the block before left is written as such (`INITIAL`).
// 2. `zstd_copy`: a frame's bytes, by one thread block, in windows of 4,096. A sequence marks its first byte; each byte finds its sequence
//    by counting marks, and from where it is copied: a literal, a byte before the window, or another byte of the window. The latter are
//    followed, by all bytes of the window at once, to one of the former. So no sequence waits for another one.
//
// All that a frame says is checked before it is an address; where it can't be, the frame is flagged and left.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;
constexpr u32 DAMAGED = 1;   // a frame that contradicts itself
constexpr u32 TEAM = 4;      // blocks of a warp
constexpr u32 BLOCK = 1 << 17;  // most bytes of a block
constexpr u32 TABLE = 128;   // bytes of a table
constexpr u32 STATES = 512 + 256 + 512, SYMBOLS = 64;
constexpr u32 CODES = 1 << 11;

// A table: weights of literals, four bits each; or counts of symbols: log of their sum, how many there are, and each in two bytes.
struct Bits {
    u64 from;
    u32 len, pad;
};
struct Coded {
    Bits streams[4];
    u64 to;
    u32 n_streams, len, table, bits;
};
struct Chain {
    Bits bits;
    u32 n, to, literals, tables[3];
};
struct Frame {
    u64 to;
    u32 len, block, blocks, pad;
};
constexpr u32 SAME = 1, DECODED = 2;  // other literals are stored as they are
struct Block {
    u64 literals;
    u32 kind, len, sequence, n;
};

// Bits on their way: quads of words, of which the latest `N` that were asked for are there. One more keeps neighbours from the same banks.
template <u32 N> struct Ring {
    uint4 quads[N + 1];
    __device__ void put(int q, const uint4& quad) { quads[q & (N - 1)] = quad; }
    // The 32 bits before bit `at`.
    __device__ u32 before(int at) const {
        const u32* words = (const u32*)quads;
        return __funnelshift_r(words[((at >> 5) - 1) & (4 * N - 1)], words[(at >> 5) & (4 * N - 1)], at & 31);
    }
};

// The first `n` of some bits.
__device__ u32 top(u32 bits, u32 n) { return (bits >> 1) >> (31 - n); }

// Bits that are read from their end, as quads: up to sixteen bytes on both sides are read, too. The first bit is bit `begin`.
struct Quads {
    const uint4* quads;
    int begin;
    __device__ explicit Quads(const u8* from) {
        const u32 shift = (u32)((u64)from & 15);
        quads = (const uint4*)(from - shift);
        begin = (int)(8 * shift);
    }
    // Nothing before the first.
    __device__ uint4 get(int q) const { return q >= 0 ? quads[q] : make_uint4(0, 0, 0, 0); }
};

// RFC 8878, 3.1.1.3.2.1.1: bits behind the code of a length.
__device__ u32 literal_bits(u32 code) { return code < 16 ? 0 : code < 20 ? 1 : code < 22 ? 2 : code < 24 ? 3 : code == 24 ? 4 : code - 19; }
__device__ u32 match_bits(u32 code) {
    return code < 32 ? 0 : code < 36 ? 1 : code < 38 ? 2 : code < 40 ? 3 : code < 42 ? 4 : code == 42 ? 5 : code - 36;
}

// A state: bits of its symbol's number, symbol, bits of the next state, its base.
__device__ u32 state(u32 extra, u32 symbol, u32 width, u32 base) { return extra << 20 | symbol << 14 | width << 10 | base; }
struct State {
    u32 word;
    __device__ u32 extra() const { return word >> 20; }
    __device__ u32 symbol() const { return word >> 14 & 63; }
    __device__ u32 width() const { return word >> 10 & 15; }
    __device__ u32 base() const { return word & 1023; }
};

// States of a table (RFC 8878, 4.1.1); `kind`: literal lengths, offsets, match lengths. `next`: one number a symbol.
__device__ void make_states(const u8* table, u32 kind, u32* states, u16* next) {
    const u32 log = table[0], n = table[1], size = 1 << log, step = (size >> 1) + (size >> 3) + 3;
    const u16* counts = (const u16*)(table + 2);
    u32 high = size;
    for (u32 s = 0; s < n; s++) {
        const u32 count = counts[s];
        if (count == 0xffff) states[--high] = s;
        next[s] = (u16)(count == 0xffff ? 1 : count);
    }
    u32 at = 0;
    for (u32 s = 0; s < n; s++) {
        const u32 count = counts[s];
        for (u32 i = 0; count != 0xffff && i < count; i++) {
            states[at] = s;
            do at = (at + step) & (size - 1);
            while (at >= high && high > 0);
        }
    }
    for (u32 k = 0; k < size; k++) {
        const u32 s = states[k], x = next[s]++, width = log - (31 - __clz((int)x));
        const u32 extra = kind == 0 ? literal_bits(s) : kind == 1 ? s : match_bits(s);
        states[k] = state(extra, s, width, (x << width) - size);
    }
}

// A sequence: literals before its match and bytes before it, both in the block, and its offset. An offset that the block before left, less
// some: INITIAL | which << 25 | less.
constexpr u32 INITIAL = 1 << 27;
__device__ u64 sequence(u32 literals, u32 start, u32 offset) { return literals | (u64)start << 18 | (u64)offset << 36; }
__device__ u32 literals_of(u64 word) { return (u32)word & 0x3ffff; }
__device__ u32 start_of(u64 word) { return (u32)(word >> 18) & 0x3ffff; }
__device__ u32 offset_of(u64 word) { return (u32)(word >> 36); }

// Numbers of length codes below their bits.
struct Bases {
    u32 literals[36], matches[53];
    __device__ void fill(u32 lane, u32 lanes) {
        for (u32 code = lane; code < 36; code += lanes) {
            u32 sum = 0;
            for (u32 c = 0; c < code; c++) sum += 1u << literal_bits(c);
            literals[code] = sum;
        }
        for (u32 code = lane; code < 53; code += lanes) {
            u32 sum = 3;
            for (u32 c = 0; c < code; c++) sum += 1u << match_bits(c);
            matches[code] = sum;
        }
    }
};

// A chain, by eight lanes: the first reads it, all of them fetch its bits, a piece of 128 bytes while the one before is read. All chains of
// the warp go in step, since a lane that waits for memory lets the others wait, too; nothing branches but for the ends.
__device__ bool read_chain(const u8* bytes, const Chain& chain, u32 most, const u8* tables, const u32* states, const Bases& bases, Ring<32>& ring,
                           u64* out, u32 part) {
    constexpr u32 PERIOD = 8;  // sequences, of at most 89 bits
    const u32 *of_literals = states, *of_offsets = states + 512, *of_matches = states + 768;
    const u32 n = chain.n, all_literals = chain.literals;
    const Quads quads(bytes + chain.bits.from);
    // The next bit is the one before `at`; quads from `low` on are there.
    int at = quads.begin + (int)chain.bits.len, low = (at >> 7) - 15;
    for (int q = low + (int)part; q < low + 16; q += 8) ring.put(q, quads.get(q));
    __syncwarp();
    const u32 log_l = tables[TABLE * chain.tables[0]], log_o = tables[TABLE * chain.tables[1]], log_m = tables[TABLE * chain.tables[2]];
    u32 first = ring.before(at), l = top(first, log_l);
    first <<= log_l;
    u32 o = top(first, log_o);
    first <<= log_o;
    u32 m = top(first, log_m);
    at -= (int)(log_l + log_o + log_m);
    u32 literals = 0, made = 0, last0 = INITIAL, last1 = INITIAL | 1 << 25, last2 = INITIAL | 2 << 25;
    bool good = true, coming = false;
    uint4 quad = make_uint4(0, 0, 0, 0);
    for (u32 period = 0; period < most; period += PERIOD) {
        const int now = __shfl_sync(ALL, at, (int)(threadIdx.x & 24));
        if (coming) {
            low -= 8;
            ring.put(low + (int)part, quad);
        }
        // No more than fits beside what is still needed.
        coming = period < n && (now >> 7) - low <= 22;
        if (coming) quad = quads.get(low - 8 + (int)part);
        __syncwarp();
        const u32 end = part == 0 ? min(n, period + PERIOD) : 0;
        for (u32 k = period; k < end; k++) {
            const State now_l{of_literals[l]}, now_o{of_offsets[o]}, now_m{of_matches[m]};
            const int at_match = at - (int)now_o.extra(), at_literal = at_match - (int)now_m.extra(), at_state = at_literal - (int)now_l.extra();
            const u32 number = (1u << now_o.extra()) + top(ring.before(at), now_o.extra());
            const u32 match = bases.matches[now_m.symbol()] + top(ring.before(at_match), now_m.extra());
            const u32 before = bases.literals[now_l.symbol()] + top(ring.before(at_literal), now_l.extra());
            // The last one leads to no other state.
            u32 next = ring.before(at_state);
            at = k + 1 < n ? at_state - (int)(now_l.width() + now_m.width() + now_o.width()) : at_state;
            l = now_l.base() + top(next, now_l.width());
            next <<= now_l.width();
            m = now_m.base() + top(next, now_m.width());
            next <<= now_m.width();
            o = now_o.base() + top(next, now_o.width());
            // RFC 8878, 3.1.1.5.
            const u32 which = number > 3 ? 3 : number - (before != 0);
            const u32 less = last0 & INITIAL ? last0 + 1 : last0 - 1;
            const u32 offset = number > 3 ? number - 3 : which == 0 ? last0 : which == 1 ? last1 : which == 2 ? last2 : less;
            last2 = which >= 2 ? last1 : last2;
            last1 = which >= 1 ? last0 : last1;
            last0 = offset;
            literals += before;
            made += before;
            out[k] = sequence(literals, made, offset);
            made += match;
            good = good && now_o.extra() <= 27 && (number <= 3 || number - 3 < INITIAL) && literals <= all_literals && made <= BLOCK;
        }
        __syncwarp();
    }
    if (part > 0 || n == 0) return true;
    made += all_literals - literals;
    good = good && at == quads.begin && made <= BLOCK;
    out[n] = good ? sequence(all_literals, made, 0) : ~0ull;
    out[n + 1] = last0 | (u64)last1 << 32;
    out[n + 2] = last2;
    return good;
}

// Codes of a table (RFC 8878, 4.2.1), symbol and bits of each, by eight lanes. `firsts`: where each weight's codes begin, once a lane.
__device__ void make_codes(const u8* table, u32 bits, u16* codes, u16 (*firsts)[16], u32 lane) {
    const u32* words = (const u32*)table;
    u16* first = firsts[lane];
    for (u32 weight = 0; weight < 16; weight++) first[weight] = 0;
    for (u32 w = 0; w < TABLE / 4; w++) {
        for (u32 word = words[w]; word; word >>= 4) first[word & 15]++;
    }
    u32 sum = 0;
    for (u32 weight = 1; weight <= bits; weight++) {
        const u32 n = (u32)first[weight] << (weight - 1);
        first[weight] = (u16)sum;
        sum += n;
    }
    for (u32 w = 0; w < TABLE / 4; w++) {
        u32 symbol = 8 * w;
        for (u32 word = words[w]; word; word >>= 4, symbol++) {
            const u32 weight = word & 15, n = (1u << weight) >> 1, from = first[weight];
            const u16 code = (u16)(symbol << 8 | (bits + 1 - weight));
            for (u32 k = lane; k < n; k += 8) codes[from + k] = code;
            first[weight] = (u16)(from + n);
        }
    }
}

// A stream of `n` literals by one lane, as chains are read: all lanes in step, of which one has `most`.
__device__ bool read_literals(const u8* bytes, const Bits& stream, u32 most, const u16* codes, u32 bits, Ring<8>& ring, u8* to, u32 n) {
    constexpr u32 PERIOD = 8;  // literals, of at most 88 bits
    const u32 shift = 32 - bits;
    const Quads quads(bytes + stream.from);
    int at = quads.begin + (int)stream.len, low = (at >> 7) - 7;
    for (int q = low; q < low + 8; q++) ring.put(q, quads.get(q));
    auto one = [&]() {
        const u32 code = codes[ring.before(at) >> shift];
        at -= (int)(code & 15);
        return code >> 8;
    };
    auto two = [&]() {
        const u32 window = ring.before(at), a = codes[window >> shift], b = codes[(window << (a & 15)) >> shift];
        at -= (int)((a & 15) + (b & 15));
        return a >> 8 | (b & 0xff00);
    };
    u32 k = 0;
    while (k < n && ((u64)(to + k) & 3)) to[k++] = (u8)one();
    bool coming = false;
    uint4 quad = make_uint4(0, 0, 0, 0);
    for (u32 period = 0; period < most; period += PERIOD) {
        if (coming) ring.put(--low, quad);
        coming = (at >> 7) - low <= 5;
        if (coming) quad = quads.get(low - 1);
        if (k + PERIOD <= n) {
            for (u32 word = 0; word < PERIOD / 4; word++, k += 4) {
                const u32 first = two();
                *(u32*)(to + k) = first | two() << 16;
            }
        }
    }
    while (k < n) to[k++] = (u8)one();
    return at == quads.begin;
}

union Memory {
    struct {
        u32 states[TEAM][STATES];
        Ring<32> rings[TEAM];
        u16 next[TEAM][3][SYMBOLS];
        Bases bases;
    } chains;
    struct {
        u16 codes[TEAM][CODES];
        u16 firsts[TEAM][8][16];
        Ring<8> rings[TEAM][4];
    } literals;
};

// One warp a block of threads: first those of the chains, then those of literals. A chain that is damaged has no end (all bits one).
extern "C" __global__ void __launch_bounds__(32) zstd_entropy(const u8* bytes, const u8* tables, const Chain* chains, u32 n_chains,
                                                              const Coded* coded, u32 n_coded, u64* sequences, u8* literals, u32* found) {
    __shared__ Memory memory;
    const u32 lane = threadIdx.x, warps = (n_chains + TEAM - 1) / TEAM;
    bool good = true;
    if (blockIdx.x < warps) {
        // Three of eight lanes make the tables.
        const u32 mine = lane / 8, part = lane % 8, i = blockIdx.x * TEAM + mine;
        const Chain chain = i < n_chains ? chains[i] : Chain{};
        memory.chains.bases.fill(lane, 32);
        if (chain.n > 0 && part < 3) {
            const u32 from[3] = {0, 512, 768};
            make_states(tables + (u64)TABLE * chain.tables[part], part, memory.chains.states[mine] + from[part], memory.chains.next[mine][part]);
        }
        u32 most = chain.n;
        for (u32 d = 8; d < 32; d *= 2) most = max(most, __shfl_xor_sync(ALL, most, d));
        __syncwarp();
        good = read_chain(bytes, chain, most, tables, memory.chains.states[mine], memory.chains.bases, memory.chains.rings[mine],
                          sequences + chain.to, part);
    } else {
        const u32 mine = lane / 8, part = lane % 8, i = (blockIdx.x - warps) * TEAM + mine;
        const Coded c = i < n_coded ? coded[i] : Coded{};
        if (c.len > 0) {
            make_codes(tables + (u64)TABLE * c.table, c.bits, memory.literals.codes[mine], memory.literals.firsts[mine], part);
        }
        const u32 each = c.n_streams == 4 ? (c.len + 3) / 4 : c.len;
        u32 most = each;
        for (u32 d = 8; d < 32; d *= 2) most = max(most, __shfl_xor_sync(ALL, most, d));
        __syncwarp();
        if (part < c.n_streams) {
            const u32 from = min(part * each, c.len);
            good = read_literals(bytes, coded[i].streams[part], most, memory.literals.codes[mine], c.bits, memory.literals.rings[mine][part],
                                 literals + c.to + from, min(each, c.len - from));
        }
    }
    if (!good) atomicOr(found, DAMAGED);
}

constexpr u32 THREADS = 512, WINDOW = 4096, MARKS = WINDOW / 32, EACH = WINDOW / THREADS, MOST = THREADS - 1;
// From where a byte comes: another byte of the window, or a literal, or a byte of the frame.
constexpr u32 OUTSIDE = 1u << 31, LITERAL = 1u << 30, PLACE = LITERAL - 1;

// A sequence in a window: bytes of matches before it, where its match starts, and its offset.
struct Copied {
    u32 matches, start, offset;
};

__device__ u32 resolve(u32 offset, const u32 left[3]) {
    if (!(offset & INITIAL)) return offset;
    const u32 which = offset >> 25 & 3, less = offset & ((1 << 25) - 1);
    const u32 whole = which == 0 ? left[0] : which == 1 ? left[1] : left[2];
    return whole > less ? whole - less : 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) zstd_copy(const u8* bytes, const Frame* frames, const Block* blocks,
                                                                           const u64* sequences, const u8* literals, u8* out, u32* found) {
    __shared__ Copied copied[MOST];
    __shared__ u32 marks[MARKS], before[MARKS], origin[WINDOW];
    // Where the first sequence begins that has no room, and whether one begins right behind the window.
    __shared__ u32 limit, behind;
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32;
    const Frame frame = frames[blockIdx.x];
    u8* to = out + frame.to;
    u32 left[3] = {1, 4, 8}, done = 0;
    if (t < MARKS) marks[t] = 0;
    if (t == 0) behind = 0;
    __syncthreads();
    bool good = true;
    for (u32 b = 0; b < frame.blocks && good; b++) {
        const Block block = blocks[frame.block + b];
        const u8* source = (block.kind == DECODED ? literals : bytes) + block.literals;
        const u32 stride = block.kind == SAME ? 0 : 1;
        const u64* words = sequences + block.sequence;
        const u64 end = block.n ? words[block.n] : sequence(block.len, block.len, 0);
        const u32 len = start_of(end);
        if (len > BLOCK || len > frame.len - done) {
            good = false;
            break;
        }
        // What each window needs is read while the one before is copied: a sequence a thread, and the one before that.
        u32 cursor = 0;
        u64 word = t < block.n ? words[t] : end, previous = t > 0 && t <= block.n ? words[t - 1] : 0;
        for (u32 from = 0; from < len;) {
            const u32 start = start_of(word), offset = resolve(offset_of(word), left), most = min(from + WINDOW, len);
            const u32 first = cursor + t <= block.n ? start - (literals_of(word) - literals_of(previous)) : len + 1;
            bool fits = true;
            if (t == MOST) {
                // The window ends there.
                limit = first;
            } else if (first < most) {
                const u32 place = max(first, from) - from;
                // The last one has no match.
                fits = cursor + t == block.n || (offset > 0 && offset <= done + start);
                copied[t] = Copied{start - literals_of(word), start, max(offset, 1u)};
                atomicOr(&marks[place / 32], 1u << (place & 31));
            }
            if (first == most || (t == MOST && first < most)) behind = 1;
            if (!__syncthreads_and(fits)) {
                good = false;
                break;
            }
            if (warp == 0) {
                u32 own[MARKS / 32], sum = 0;
                for (u32 w = 0; w < MARKS / 32; w++) {
                    own[w] = sum;
                    sum += __popc(marks[MARKS / 32 * lane + w]);
                }
                u32 all = sum;
                for (u32 d = 1; d < 32; d *= 2) {
                    const u32 other = __shfl_up_sync(ALL, all, d);
                    if (lane >= d) all += other;
                }
                for (u32 w = 0; w < MARKS / 32; w++) before[MARKS / 32 * lane + w] = all - sum + own[w];
            }
            __syncthreads();
            const u32 until = min(most, limit), n = until - from, base = done + from;
            u32 place[EACH];
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                const u32 k = e * THREADS + t;
                place[e] = OUTSIDE;
                if (k < n) {
                    const Copied c = copied[before[k / 32] + __popc(marks[k / 32] & (ALL >> (31 - lane))) - 1];
                    const u32 at = from + k;
                    if (at < c.start) {
                        place[e] = OUTSIDE | LITERAL | (at - c.matches);
                    } else {
                        // A match that reaches into itself repeats what lies before it.
                        const u32 ahead = at - c.start, low = c.offset - 1;
                        const u32 back = ahead < c.offset ? c.offset : ahead + c.offset - (c.offset & low ? ahead % c.offset : ahead & low);
                        place[e] = back <= k ? k - back : OUTSIDE | (base + k - back);
                    }
                    origin[k] = place[e];
                }
            }
            cursor += before[MARKS - 1] + __popc(marks[MARKS - 1]) + behind - 1;
            word = cursor + t < block.n ? words[cursor + t] : end;
            previous = cursor + t > 0 && cursor + t <= block.n ? words[cursor + t - 1] : 0;
            __syncthreads();
            if (t < MARKS) marks[t] = 0;
            if (t == 0) behind = 0;
            bool inside = true;
            while (inside) {
                inside = false;
#pragma unroll
                for (u32 e = 0; e < EACH; e++) {
                    if (!(place[e] & OUTSIDE)) {
                        place[e] = origin[place[e]];
                        // Whoever comes by here goes on from there.
                        origin[e * THREADS + t] = place[e];
                        inside = true;
                    }
                }
            }
            // All loads, then all stores: one wait serves them.
            u8 byte[EACH];
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                const u32 at = place[e] & PLACE;
                const u8* own = place[e] & LITERAL ? source + at * stride : to + at;
                byte[e] = *(e * THREADS + t < n ? own : bytes);
            }
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                if (e * THREADS + t < n) to[base + e * THREADS + t] = byte[e];
            }
            from = until;
            __syncthreads();
        }
        if (!good) break;
        if (block.n) {
            const u64 two = words[block.n + 1];
            const u32 a = resolve((u32)two, left), z = resolve((u32)(two >> 32), left), y = resolve((u32)words[block.n + 2], left);
            left[0] = a;
            left[1] = z;
            left[2] = y;
        }
        done += len;
    }
    if ((!good || done != frame.len) && t == 0) atomicOr(found, DAMAGED);
}
