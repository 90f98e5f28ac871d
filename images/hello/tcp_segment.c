/* Reading and writing segments; SYN cookies as D. J. Bernstein described them in 1996
 * (cr.yp.to/syncookies.html; RFC 4987, 3.6). */
#include "tcp_segment.h"
#include "console.h"
#include "hash.h"
#include "ip.h"
#include "tcp.h"

#define OPTION_END 0
#define OPTION_NONE 1
#define OPTION_MSS 2
#define LEAST_MSS 536                   /* what every IPv4 peer can take: RFC 9293, 3.7.1 */
#define SLOT 64                         /* seconds; a cookie is good for one to two of these */
#define SLOT_SHIFT 24
#define HASH_BITS 22
#define HASH_MASK ((1u << HASH_BITS) - 1)

#define TCP_HEADER 20
struct tcp_header {
    u8 from[2], to[2], seq[4], ack[4], offset, flags, window[2], checksum[2], urgent[2];
};

/* The largest of these that is not above what the peer said: its number takes two bits. */
static const u16 mss_choices[] = { LEAST_MSS, 1220, 1440, 1460 };

static u16 mss_option(const u8 *at, const u8 *end)
{
    while (at < end && *at != OPTION_END) {
        if (*at == OPTION_NONE) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at)
            break;
        if (at[0] == OPTION_MSS && at[1] == 4)
            return get16(at + 2);
        at += at[1];
    }
    return 0;
}

bool segment_read(const struct packet *p, struct segment *s)
{
    const struct tcp_header *h = (const struct tcp_header *)p->data;
    u32 header;

    if (p->length < sizeof *h || transport_checksum(&p->path, TCP, p->data, p->length) != 0)
        return false;
    header = (h->offset >> 4) * 4;
    if (header < sizeof *h || header > p->length)
        return false;
    *s = (struct segment){
        .from = get16(h->from), .to = get16(h->to), .seq = get32(h->seq), .ack = get32(h->ack),
        .flags = h->flags & (FIN | SYN | RST | ACK), .window = get16(h->window),
        .mss = mss_option(p->data + sizeof *h, p->data + header),
        .data = p->data + header, .length = p->length - header,
    };
    return true;
}

void segment_send(const struct path *path, const struct segment *s)
{
    struct tcp_header *h = (struct tcp_header *)net_payload();
    u8 *at = (u8 *)(h + 1);

    *h = (struct tcp_header){ .flags = s->flags };
    put16(h->from, s->from);
    put16(h->to, s->to);
    put32(h->seq, s->seq);
    put32(h->ack, s->ack);
    put16(h->window, s->window);
    if (s->flags & SYN) {
        at[0] = OPTION_MSS, at[1] = 4;
        put16(at + 2, s->mss);
        at += 4;
    }
    h->offset = (at - (u8 *)h) / 4 << 4;
    memcpy(at, s->data, s->length);
    u32 length = at + s->length - (u8 *)h;
    put16(h->checksum, transport_checksum(path, TCP, (u8 *)h, length));
    net_send(path, TCP, length);
}

void segment_refuse(const struct path *path, const struct segment *s)
{
    u32 length = s->length + !!(s->flags & SYN) + !!(s->flags & FIN);
    struct segment reply = { .from = s->to, .to = s->from, .flags = RST };

    if (s->flags & RST)
        return;
    if (s->flags & ACK) {
        reply.seq = s->ack;
    } else {
        reply.flags |= ACK;
        reply.ack = s->seq + length;
    }
    segment_send(path, &reply);
}

/* What a peer cannot guess. `what` keeps the two uses of the hash apart. */
static u32 secret_of(const struct path *path, u16 port, u32 slot, u32 what)
{
    struct { struct ip local, remote; u32 port, slot, what; } input = {
        path->local, path->remote, port, slot, what,
    };
    return keyed_hash(&input, sizeof input);
}

static u32 slot_now(void) { return divide(divide(machine->now_ns(), SECOND), SLOT); }

/* From above: 8 bits for the time slot, 2 for the MSS, 22 of a hash; all on top of a secret of each
 * pair, less the peer's own first number. So the sum of both numbers is known here, and tells a
 * segment of the handshake from later ones, in which at least one of them has grown. */
static u32 cookie(const struct path *path, u16 port, u32 peer_first, u32 slot, u32 choice)
{
    u32 hash = secret_of(path, port, slot, 1) & HASH_MASK;
    return secret_of(path, port, 0, 0) - peer_first + (slot << SLOT_SHIFT) + (choice << HASH_BITS) + hash;
}

void cookie_send(const struct path *path, const struct segment *syn)
{
    u32 choice = countof(mss_choices) - 1;
    while (choice && mss_choices[choice] > (syn->mss ? syn->mss : LEAST_MSS))
        choice--;
    struct segment reply = {
        .from = syn->to, .to = syn->from, .flags = SYN | ACK, .window = REQUEST_ROOM,
        .seq = cookie(path, syn->from, syn->seq, slot_now(), choice), .ack = syn->seq + 1,
        .mss = MTU - TCP_HEADER - (is_ipv4(&path->remote) ? IPV4_HEADER : IPV6_HEADER),
    };
    segment_send(path, &reply);
}

/* The ACK of our answer, and the first data, carry the peer's first number plus one. Data a little
 * ahead of that belong to the connection, too, but came before what opens it. */
enum cookie cookie_check(const struct path *path, const struct segment *s, u16 *mss)
{
    u32 now = slot_now();
    for (u32 age = 0; age < 2 && age <= now; age++) {
        u32 difference = s->ack - 1 - cookie(path, s->from, s->seq - 1, now - age, 0);
        u32 ahead = difference & HASH_MASK, choice = difference >> HASH_BITS;
        if (choice >= countof(mss_choices) || ahead > REQUEST_ROOM)
            continue;
        *mss = mss_choices[choice];
        if (ahead == 0)
            return COOKIE_RIGHT;
        if (s->length || s->flags & FIN)
            return COOKIE_EARLY;
    }
    return COOKIE_WRONG;
}
