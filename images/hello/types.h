/* The few words every file here uses: C without any header of a library. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)
#define FOREVER (~(u64)0)               /* a time in ns that never comes */
#define SECOND 1000000000ull            /* in ns */
#define MILLISECOND 1000000ull          /* in ns */
#define countof(array) (sizeof(array) / sizeof((array)[0]))

static inline u32 min(u32 a, u32 b) { return a < b ? a : b; }
static inline u64 earlier(u64 a, u64 b) { return a < b ? a : b; }

/* Divide 64 bits by 32: the compiler would call a library for it. */
static inline u64 divide(u64 n, u32 by)
{
    u32 high = n >> 32, low = n, rest = high % by;
    high /= by;
    __asm__("divl %2" : "+a"(low), "+d"(rest) : "r"(by));
    return (u64)high << 32 | low;
}
