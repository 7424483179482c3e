// Random numbers that are a function of where they are used: random.rs.

typedef unsigned long long u64;

__device__ u64 mix(u64 x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

__device__ u64 random_bits(u64 seed, u64 purpose, u64 a, u64 b) {
    const u64 first = mix(seed + purpose * 0x9e3779b97f4a7c15ull);
    return mix(mix(first ^ a * 0xd1342543de82ef95ull) ^ b * 0x2545f4914f6cdd1dull);
}

