// zstd frames to bytes (RFC 8878). The host has read the headers (zstd.rs); blocks of a frame are decoded in two steps.
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
constexpr u32 DAMAGED = 1;            // a frame that contradicts itself
constexpr u32 TEAM = 4;               // blocks of a warp
constexpr u32 BLOCK = 1 << 17;        // most bytes of a block
constexpr u32 TABLE = 128;            // bytes of a table
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

// Bits before bit `len` of some bytes, the last ones first. Sixteen bytes are read at a time, and two times ahead: what has to be waited for
// is all that one lane's chain and its neighbours' have in common. Up to fifteen bytes on both sides are read, too.
struct Reader {
    const uint4* quads;
    u64 bits;  // the next ones, on top
    uint4 here, ahead;
    u32 before;
    int at, have;
    __device__ uint4 quad(int q) const { return q >= 0 ? quads[q] : make_uint4(0, 0, 0, 0); }
    __device__ void open(const u8* from, u32 len) {
        const u32 shift = (u32)((u64)from & 15);
        quads = (const uint4*)(from - shift);
        before = 8 * shift;
        const int end = (int)(before + len), top = (end + 31) / 32 - 1;
        at = top;
        here = quad(top >> 2);
        ahead = quad((top >> 2) - 1);
        have = end - 32 * top;
        if (top < 0) {
            have = 0;
            bits = 0;
        } else {
            bits = (u64)word() << (64 - have);
        }
    }
    // The next word; zeros before the first.
    __device__ u32 word() {
        const u32 word = at & 2 ? (at & 1 ? here.w : here.z) : (at & 1 ? here.y : here.x);
        if ((at & 3) == 0) {
            here = ahead;
            ahead = quad((at >> 2) - 2);
        }
        at--;
        return word;
    }
    // At least 33 bits, of which those before the first are of no meaning.
    __device__ void refill() {
        if (have <= 32) {
            bits |= (u64)word() << (32 - have);
            have += 32;
        }
    }
    __device__ u32 top() const { return (u32)(bits >> 32); }
    __device__ void skip(u32 n) {
        bits <<= n;
        have -= (int)n;
    }
    __device__ u32 take(u32 n) {
        const u32 bits = (top() >> 1) >> (31 - n);
        skip(n);
        return bits;
    }
    // Whether all were read, and none before the first.
    __device__ bool done() const { return 32 * (at + 1) + have == (int)before; }
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

__device__ bool read_chain(const u8* bytes, const Chain& chain, const u8* tables, const u32* states, const Bases& bases, u64* out) {
    const u32 *of_literals = states, *of_offsets = states + 512, *of_matches = states + 768;
    Reader reader;
    reader.open(bytes + chain.bits.from, chain.bits.len);
    reader.refill();
    u32 l = reader.take(tables[TABLE * chain.tables[0]]);
    u32 o = reader.take(tables[TABLE * chain.tables[1]]);
    u32 m = reader.take(tables[TABLE * chain.tables[2]]);
    u32 literals = 0, at = 0;
    u32 last[3] = {INITIAL, INITIAL | 1 << 25, INITIAL | 2 << 25};
    for (u32 k = 0; k < chain.n; k++) {
        const State now_l{of_literals[l]}, now_o{of_offsets[o]}, now_m{of_matches[m]};
        if (now_o.extra() > 27) return false;
        reader.refill();
        const u32 number = (1u << now_o.extra()) + reader.take(now_o.extra());
        reader.refill();
        const u32 match = bases.matches[now_m.symbol()] + reader.take(now_m.extra());
        const u32 before = bases.literals[now_l.symbol()] + reader.take(now_l.extra());
        if (k + 1 < chain.n) {
            reader.refill();
            l = now_l.base() + reader.take(now_l.width());
            m = now_m.base() + reader.take(now_m.width());
            o = now_o.base() + reader.take(now_o.width());
        }
        // RFC 8878, 3.1.1.5.
        u32 offset = number - 3;
        u32 which = 3;
        if (number <= 3) {
            which = number - (before != 0);
            offset = last[0];
            if (which == 1) offset = last[1];
            if (which == 2) offset = last[2];
            if (which == 3) offset = last[0] & INITIAL ? last[0] + 1 : last[0] - 1;
        } else if (offset >= INITIAL) {
            return false;
        }
        if (which >= 2) last[2] = last[1];
        if (which >= 1) last[1] = last[0];
        last[0] = offset;
        literals += before;
        at += before;
        if (literals > chain.literals || at + match > BLOCK) return false;
        out[k] = sequence(literals, at, offset);
        at += match;
    }
    at += chain.literals - literals;
    if (!reader.done() || at > BLOCK) return false;
    out[chain.n] = sequence(chain.literals, at, 0);
    out[chain.n + 1] = last[0] | (u64)last[1] << 32;
    out[chain.n + 2] = last[2];
    return true;
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

__device__ bool read_literals(const u8* bytes, const Bits& stream, const u16* codes, u32 bits, u8* to, u32 n) {
    Reader reader;
    reader.open(bytes + stream.from, stream.len);
    const u32 shift = 32 - bits;
    u32 k = 0;
    auto one = [&]() {
        const u32 code = codes[reader.top() >> shift];
        reader.skip(code & 15);
        return code >> 8;
    };
    while (k < n && ((u64)(to + k) & 3)) {
        reader.refill();
        to[k++] = (u8)one();
    }
    for (; k + 4 <= n; k += 4) {
        reader.refill();
        u32 word = one();
        word |= one() << 8;
        reader.refill();
        word |= one() << 16;
        word |= one() << 24;
        *(u32*)(to + k) = word;
    }
    while (k < n) {
        reader.refill();
        to[k++] = (u8)one();
    }
    return reader.done();
}

union Memory {
    struct {
        u32 states[TEAM][STATES];
        u16 next[TEAM][3][SYMBOLS];
        Bases bases;
    } chains;
    struct {
        u16 codes[TEAM][CODES];
        u16 firsts[TEAM][8][16];
    } literals;
};

// One warp a block of threads: first those of the chains, then those of literals. A chain that is damaged has no end (all bits one).
extern "C" __global__ void __launch_bounds__(32) zstd_entropy(const u8* bytes, const u8* tables, const Chain* chains, u32 n_chains,
                                                              const Coded* coded, u32 n_coded, u64* sequences, u8* literals, u32* found) {
    __shared__ Memory memory;
    const u32 lane = threadIdx.x, warps = (n_chains + TEAM - 1) / TEAM;
    bool good = true;
    if (blockIdx.x < warps) {
        // Eight lanes a chain: three make the tables, the first goes on.
        const u32 mine = lane / 8, part = lane % 8, i = blockIdx.x * TEAM + mine;
        memory.chains.bases.fill(lane, 32);
        if (i < n_chains && part < 3) {
            const u32 from[3] = {0, 512, 768};
            make_states(tables + (u64)TABLE * chains[i].tables[part], part, memory.chains.states[mine] + from[part],
                        memory.chains.next[mine][part]);
        }
        __syncwarp();
        if (i < n_chains && part == 0) {
            u64* out = sequences + chains[i].to;
            good = read_chain(bytes, chains[i], tables, memory.chains.states[mine], memory.chains.bases, out);
            if (!good) out[chains[i].n] = ~0ull;
        }
    } else {
        const u32 mine = lane / 8, part = lane % 8, i = (blockIdx.x - warps) * TEAM + mine;
        if (i < n_coded) {
            const u8* table = tables + (u64)TABLE * coded[i].table;
            make_codes(table, coded[i].bits, memory.literals.codes[mine], memory.literals.firsts[mine], part);
        }
        __syncwarp();
        if (i < n_coded && part < coded[i].n_streams) {
            const Coded& c = coded[i];
            const u32 each = c.n_streams == 1 ? c.len : (c.len + 3) / 4, from = min(part * each, c.len);
            good = read_literals(bytes, c.streams[part], memory.literals.codes[mine], c.bits, literals + c.to + from, min(each, c.len - from));
        }
    }
    if (!good) atomicOr(found, DAMAGED);
}

constexpr u32 THREADS = 512, WINDOW = 4096, MARKS = WINDOW / 32, EACH = WINDOW / THREADS, MOST = THREADS;
// From where a byte comes: another byte of the window, or a literal, or a byte of the frame.
constexpr u32 OUTSIDE = 1u << 31, LITERAL = 1u << 30, PLACE = LITERAL - 1;

// A sequence in a window: bytes of matches before it, where its match starts, and its offset.
struct Copied {
    u32 matches, start, offset;
};

// The sequences of a block. Behind the last one, literals alone: `end`.
struct Sequences {
    const u64* words;
    u32 n;
    u64 end;
    // Sequence `k`, and the literals before it; the first byte of a later one is `none`.
    __device__ u64 get(u32 k, u32& first, u32 none) const {
        first = none;
        if (k > n) return end;
        const u64 word = k < n ? words[k] : end;
        const u32 before = k ? literals_of(words[k - 1]) : 0;
        first = start_of(word) - (literals_of(word) - before);
        return word;
    }
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
    __shared__ u32 behind;  // whether a sequence begins right behind the window
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
        const Sequences all{words, block.n, end};
        // What each window needs is read while the one before is copied.
        u32 cursor = 0, first, beyond;
        u64 word = all.get(t, first, len + 1);
        all.get(MOST, beyond, len + 1);
        for (u32 from = 0; from < len;) {
            // The window ends before the first sequence that has no room.
            const u32 until = min(min(from + WINDOW, len), beyond);
            bool fits = true;
            if (first < until) {
                const u32 start = start_of(word), offset = resolve(offset_of(word), left), place = max(first, from) - from;
                // The last one has no match.
                fits = cursor + t == block.n || (offset > 0 && offset <= done + start);
                copied[t] = Copied{start - literals_of(word), start, max(offset, 1u)};
                atomicOr(&marks[place / 32], 1u << (place & 31));
            }
            if (first == until || beyond == until) behind = 1;
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
            const u32 n = until - from, base = done + from;
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
            word = all.get(cursor + t, first, len + 1);
            all.get(cursor + MOST, beyond, len + 1);
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
            u8 byte[EACH];
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                const u32 at = place[e] & PLACE;
                if (e * THREADS + t < n) byte[e] = place[e] & LITERAL ? source[at * stride] : to[at];
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
