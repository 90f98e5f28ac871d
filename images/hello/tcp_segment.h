/* TCP segments as they come and go, and the cookies that stand for half-open connections. */
#pragma once
#include "net.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };  /* flags */

struct segment {
    u16 from, to;
    u32 seq, ack;
    u8 flags;
    u16 window, mss;                    /* mss: of the option, 0 if there is none */
    const u8 *data;
    u32 length;                         /* of the data */
};

/* Sequence numbers wrap around: a is before b if that is the shorter way (RFC 9293, 3.4). */
static inline bool before(u32 a, u32 b) { return (i32)(a - b) < 0; }

bool segment_read(const struct packet *packet, struct segment *s);      /* false: damaged */
void segment_send(const struct path *path, const struct segment *s);    /* with s->mss in a SYN */
void segment_refuse(const struct path *path, const struct segment *s);  /* answer it with a reset */

/* A SYN is answered and forgotten; all we need to know comes back in the ACK of our answer. So a
 * flood of SYNs takes no room, and a lost answer is repeated when the SYN is. */
enum cookie { COOKIE_WRONG, COOKIE_EARLY, COOKIE_RIGHT };       /* EARLY: an earlier segment is missing */

void cookie_send(const struct path *path, const struct segment *syn);
enum cookie cookie_check(const struct path *path, const struct segment *ack, u16 *mss);
