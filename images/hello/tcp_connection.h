/* One TCP connection, and its sending half. */
#pragma once
#include "tcp.h"
#include "tcp_segment.h"

#define FIRST_TIMEOUT 1000              /* ms; RFC 6298 */

struct connection {
    bool used;
    struct path path;
    u16 port, mss;

    /* Sending. responses[0] has number `acked`; a FIN has the number after the last byte. */
    u32 acked, next, highest;           /* `next` falls back to `acked` after a loss */
    u32 window, window_seq, window_ack; /* the peer's, and the segment that told it */
    u32 congestion;                     /* and what we allow ourselves */
    u8 responses[RESPONSE_ROOM];
    u32 response_length;
    bool closing, fin_acked;            /* a FIN follows the responses; it has arrived */

    /* Receiving. requests[] holds what came before `expected` and was not yet answered. */
    u32 expected;
    u8 requests[REQUEST_ROOM];
    u32 request_length;
    bool peer_closed, peer_closed_first, ack_due;

    /* Time: ms for the estimate of the round trip (RFC 6298), else ns since start. */
    u32 timeout, smoothed, variation;
    u32 timed_number;                   /* measured when this is acknowledged */
    u64 timed_at;                       /* 0: nothing is being measured */
    u64 resend_at, lingers_until;       /* 0: no */
    u64 heard_at;                       /* when the peer last sent or took something new */
    u64 served_at;                      /* when it last got somewhere: opened, asked, took an answer */
};

void connection_send(struct connection *c, u32 seq, u8 flags, const u8 *data, u32 length);
void connection_reset(struct connection *c);            /* tell the peer, and free the place */

/* Send what both windows allow, then the FIN if it is time for it, and an ACK if nothing carried it. */
void connection_transmit(struct connection *c);

/* Nothing was acknowledged for a while: send the first segment again, and wait twice as long. */
void connection_resend(struct connection *c);

/* Take what an acceptable segment says about what arrived and what there is room for. */
void connection_take_ack(struct connection *c, const struct segment *s);
