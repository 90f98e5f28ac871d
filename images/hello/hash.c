/* HalfSipHash-2-4 (J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF", 2012; the
 * 32-bit variant of their reference code), keyed by what little a guest has that is secret: the
 * processor's random numbers if it has them, and the low bits of its time stamp counter. */
#include "hash.h"
#include "io.h"
#include "text.h"

#define CPUID_RDRAND (1u << 30)         /* leaf 1, register c */

static u32 key[2];

static u32 rotate(u32 x, u32 by) { return x << by | x >> (32 - by); }

static void mix(u32 v[4], u32 rounds)
{
    while (rounds--) {
        v[0] += v[1], v[1] = rotate(v[1], 5) ^ v[0], v[0] = rotate(v[0], 16);
        v[2] += v[3], v[3] = rotate(v[3], 8) ^ v[2];
        v[0] += v[3], v[3] = rotate(v[3], 7) ^ v[0];
        v[2] += v[1], v[1] = rotate(v[1], 13) ^ v[2], v[2] = rotate(v[2], 16);
    }
}

u32 keyed_hash(const void *data, u32 length)
{
    u32 v[4] = { key[0], key[1], 0x6c796765 ^ key[0], 0x74656462 ^ key[1] };
    const u8 *p = data;
    for (u32 left = length;; left -= 4, p += 4) {
        u32 word = left < 4 ? length << 24 : 0;
        memcpy(&word, p, min(left, 4));
        v[3] ^= word;
        mix(v, 2);
        v[0] ^= word;
        if (left < 4)
            break;
    }
    v[2] ^= 0xff;
    mix(v, 4);
    return v[1] ^ v[3];
}

void hash_seed(const void *data, u32 length)
{
    for (u32 i = 0; i < countof(key); i++) {
        u32 hardware = 0;
        if (cpuid(1).c & CPUID_RDRAND)
            __asm__ volatile("rdrand %0" : "=r"(hardware) : : "cc");
        key[i] ^= (u32)rdtsc() ^ hardware;
    }
    key[1] ^= keyed_hash(data, length);
}

u32 random32(void)
{
    static u32 counter;
    struct { u64 now; u32 counter; } input = { rdtsc(), counter++ };
    return keyed_hash(&input, 12);
}
