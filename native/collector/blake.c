/* BLAKE2b, for the ids of spans and records (RFC 7693, without a key). */
#include "core.h"

static const uint64_t blake_iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const uint8_t blake_order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

#define TURN(x, n) ((x) >> (n) | (x) << (64 - (n)))

#define MIX(a, b, c, d, x, y)                                                                      \
    a += b + (x); d = TURN(d ^ a, 32); c += d; b = TURN(b ^ c, 24);                                \
    a += b + (y); d = TURN(d ^ a, 16); c += d; b = TURN(b ^ c, 63)

void blake_block(blake *k, int last)
{
    uint64_t v[16], m[16];
    memcpy(m, k->block, 128); /* little-endian hosts only */
    memcpy(v, k->state, 64);
    memcpy(v + 8, blake_iv, 64);
    v[12] ^= k->counted;
    if (last)
        v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const uint8_t *o = blake_order[round % 10];
        MIX(v[0], v[4], v[8], v[12], m[o[0]], m[o[1]]);
        MIX(v[1], v[5], v[9], v[13], m[o[2]], m[o[3]]);
        MIX(v[2], v[6], v[10], v[14], m[o[4]], m[o[5]]);
        MIX(v[3], v[7], v[11], v[15], m[o[6]], m[o[7]]);
        MIX(v[0], v[5], v[10], v[15], m[o[8]], m[o[9]]);
        MIX(v[1], v[6], v[11], v[12], m[o[10]], m[o[11]]);
        MIX(v[2], v[7], v[8], v[13], m[o[12]], m[o[13]]);
        MIX(v[3], v[4], v[9], v[14], m[o[14]], m[o[15]]);
    }
    for (int i = 0; i < 8; i++)
        k->state[i] ^= v[i] ^ v[i + 8];
    k->filled = 0;
}

void blake_start(blake *k)
{
    memset(k, 0, sizeof *k);
    memcpy(k->state, blake_iv, 64);
    k->state[0] ^= 0x01010000 ^ 8;
}

void blake_add(blake *k, const char *bytes, size_t length)
{
    while (length) {
        if (k->filled == 128)
            blake_block(k, 0); /* only when more comes: the last block is marked */
        size_t part = 128 - k->filled < length ? 128 - k->filled : length;
        memcpy(k->block + k->filled, bytes, part);
        k->filled += part;
        k->counted += part;
        bytes += part;
        length -= part;
    }
}

void blake_end(blake *k)
{
    memset(k->block + k->filled, 0, 128 - k->filled);
    blake_block(k, 1);
}
