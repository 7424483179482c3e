// Streams of stored chunks to bytes: LZ4 blocks (lz4_Block_format.md), or bytes as they are. One warp a stream.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;
constexpr u32 DAMAGED = 1;  // a stream that contradicts itself
constexpr u32 AT_ONCE = 4;  // sequences that are copied at once; most take three bytes

// A length of 15 goes on in bytes, the last of which is not 255.
__device__ bool more(const u8* from, u32 stored, u32& at, u32& length, u32 lane) {
    while (true) {
        const u32 byte = at + lane < stored ? from[at + lane] : 0;
        const u32 last = __ballot_sync(ALL, byte != 255);
        const u32 n = last ? __ffs(last) - 1 : 32;
        length += 255 * n + (last ? __shfl_sync(ALL, byte, n & 31) : 0);
        at += n;
        if (length > 1u << 30) return false;
        if (last) return at++ < stored;
    }
}

// Reads up to seven bytes more, and uses none of them.
__device__ void copy(const u8* from, u8* to, u32 n, u32 lane) {
    u32 done = 0;
    if (n >= 128) {
        const u32 head = (16 - ((u64)to & 15)) & 15, wide = (n - head) / 16;
        if (lane < head) to[lane] = from[lane];
        const u32* words = (const u32*)((u64)(from + head) & ~3ull);
        const u32 shift = 8 * ((u64)(from + head) & 3);
        for (u32 k = lane; k < wide; k += 32) {
            u32 word[5];
            for (u32 w = 0; w < 5; w++) word[w] = words[4 * k + w];
            for (u32 w = 0; w < 4; w++) word[w] = __funnelshift_r(word[w], word[w + 1], shift);
            ((uint4*)(to + head))[k] = make_uint4(word[0], word[1], word[2], word[3]);
        }
        done = head + 16 * wide;
    }
    for (u32 k = done + lane; k < n; k += 32) to[k] = from[k];
}

// What lies `offset` bytes before `to`, over and over.
__device__ void repeat(u8* to, u32 offset, u32 n, u32 lane) {
    const u8* from = to - offset;
    if (offset >= n) return copy(from, to, n, lane);
    if (n < 64 || offset > 4 || offset == 3) {
        for (u32 k = lane; k < n; k += 32) to[k] = from[k % offset];
        return;
    }
    // Runs: four bytes tell all. Up to 15 bytes, then sixteen at a time, then the rest.
    const u32 head = (16 - ((u64)to & 15)) & 15, wide = (n - head) / 16;
    u32 word = 0;
    for (u32 b = 0; b < 4; b++) word |= (u32)from[(head + b) % offset] << (8 * b);
    if (lane < head) to[lane] = from[lane % offset];
    for (u32 k = lane; k < wide; k += 32) ((uint4*)(to + head))[k] = make_uint4(word, word, word, word);
    const u32 done = head + 16 * wide;
    if (done + lane < n) to[done + lane] = (u8)(word >> (8 * (lane & 3)));
}

// Sixteen bytes of the input, the same for all lanes.
struct Window {
    u64 low, high;
    // Reads up to seven bytes more.
    __device__ explicit Window(const u8* from) {
        const u32* words = (const u32*)((u64)from & ~3ull);
        const u32 shift = 8 * ((u64)from & 3);
        u32 word[5];
        for (u32 w = 0; w < 5; w++) word[w] = words[w];
        for (u32 w = 0; w < 4; w++) word[w] = __funnelshift_r(word[w], word[w + 1], shift);
        low = word[0] | (u64)word[1] << 32;
        high = word[2] | (u64)word[3] << 32;
    }
    // Two bytes from byte `at` on, at < 16.
    __device__ u32 pair(u32 at) const {
        const u64 bits = at >= 8 ? high >> (8 * at - 64) : low >> (8 * at) | (at ? high << (64 - 8 * at) : 0);
        return (u32)bits & 0xffff;
    }
};

// A few short sequences whose matches lie before all of them: loads first, then stores, so that one wait serves all.
__device__ bool several(const u8* from, u32 stored, u8* to, u32 len, u32& at, u32& done, u32 lane) {
    if (at + 16 > stored) return false;
    const Window window(from + at);
    const u32 base = done;
    u32 used = 0;
    bool good = true;
    u32 n[AT_ONCE], place[AT_ONCE];
    u8 byte[AT_ONCE];
#pragma unroll
    for (u32 s = 0; s < AT_ONCE; s++) {
        n[s] = 0;
        if (good) {
            const u32 token = window.pair(min(used, 15u)) & 255, literals = token >> 4, both = literals + (token & 15) + 4;
            const u32 next = used + literals + 3;
            good = next <= 16 && literals < 15 && (token & 15) < 15 && both <= 32 && both <= len - done;
            if (good) {
                const u32 offset = window.pair(next - 2);
                good = offset > 0 && offset <= done + literals && done + both - offset <= base;
                if (good) {
                    n[s] = both;
                    place[s] = done;
                    const u8* source = lane < literals ? from + at + used + 1 + lane : to + (done + lane - offset);
                    if (lane < both) byte[s] = *source;
                    done += both;
                    used = next;
                }
            }
        }
    }
    at += used;
#pragma unroll
    for (u32 s = 0; s < AT_ONCE; s++) {
        if (lane < n[s]) to[place[s] + lane] = byte[s];
    }
    __syncwarp();
    return used > 0;
}

__device__ bool unpack(const u8* from, u32 stored, u8* to, u32 len, u32 lane) {
    u32 at = 0, done = 0;
    while (at < stored) {
        if (several(from, stored, to, len, at, done, lane)) continue;
        const u32 token = from[at++];
        u32 literals = token >> 4;
        if (literals == 15 && !more(from, stored, at, literals, lane)) return false;
        if (literals > stored - at || literals > len - done) return false;
        copy(from + at, to + done, literals, lane);
        at += literals;
        done += literals;
        if (at == stored) break;
        if (stored - at < 2) return false;
        const u32 offset = from[at] | (u32)from[at + 1] << 8;
        at += 2;
        u32 length = token & 15;
        if (length == 15 && !more(from, stored, at, length, lane)) return false;
        length += 4;
        if (offset == 0 || offset > done || length > len - done) return false;
        __syncwarp();
        repeat(to + done, offset, length, lane);
        done += length;
        __syncwarp();
    }
    return done == len;
}

// A line of the table: where a stream lies in `bytes` and where it goes in `out`; stored bytes and bytes.
struct Stream {
    u64 from, to;
    u32 stored, len;
};

extern "C" __global__ void __launch_bounds__(128) lz4(const u8* bytes, const Stream* table, u32 n, u8* out, u32* found) {
    const u32 lane = threadIdx.x % 32, i = blockIdx.x * 4 + threadIdx.x / 32;
    if (i >= n) return;
    const Stream s = table[i];
    if (s.stored == s.len) {
        copy(bytes + s.from, out + s.to, s.len, lane);
    } else if (!unpack(bytes + s.from, s.stored, out + s.to, s.len, lane) && lane == 0) {
        atomicOr(found, DAMAGED);
    }
}
