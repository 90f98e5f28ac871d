/* IP addresses: one type for both versions, and numbers in network order.
 *
 * An IPv4 address is kept as an IPv4-mapped IPv6 address, ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), so
 * that everything above IP has one way to compare and store them. */
#pragma once
#include "text.h"

struct ip { u8 byte[16]; };

#define NO_ADDRESS ((struct ip){ { 0 } })

struct ip ipv4(const u8 four[4]);
struct ip ipv6(const u8 sixteen[16]);
bool is_ipv4(const struct ip *a);
static inline const u8 *ipv4_bytes(const struct ip *a) { return a->byte + 12; }
static inline bool same_ip(const struct ip *a, const struct ip *b) { return same(a, b, sizeof *a); }
static inline bool is_set(const struct ip *a) { return !same_ip(a, &NO_ADDRESS); }

void put_ip(struct text *to, const struct ip *a);

/* Read "10.0.0.2", "10.0.0.2/24" or "fd00::2/64". With `prefix`, the length after the slash must be
 * there; without, there must be none. False if it is anything else. */
bool parse_ipv4(const char *text, struct ip *a, u8 *prefix);
bool parse_ipv6(const char *text, struct ip *a, u8 *prefix);

static inline u16 get16(const u8 *p) { return p[0] << 8 | p[1]; }
static inline u32 get32(const u8 *p) { return (u32)get16(p) << 16 | get16(p + 2); }
static inline void put16(u8 *p, u16 v) { p[0] = v >> 8; p[1] = v; }
static inline void put32(u8 *p, u32 v) { put16(p, v >> 16); put16(p + 2, v); }
