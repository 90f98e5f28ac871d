/* The sending half of a connection: windows, acknowledgements, and sending again what got lost. */
#include "tcp_connection.h"
#include "console.h"

#define LEAST_TIMEOUT 200               /* ms; RFC 6298 says 1 s, but peers delay ACKs by 40 at most */
#define LONGEST_TIMEOUT 30000           /* ms */

void connection_send(struct connection *c, u32 seq, u8 flags, const u8 *data, u32 length)
{
    struct segment s = {
        .from = TCP_PORT, .to = c->port, .seq = seq, .ack = c->expected, .flags = flags,
        .window = REQUEST_ROOM - c->request_length, .data = data, .length = length,
    };
    segment_send(&c->path, &s);
    c->ack_due = false;
}

void connection_reset(struct connection *c)
{
    connection_send(c, c->next, RST | ACK, NULL, 0);
    c->used = false;
}

static void set_resend_timer(struct connection *c)
{
    c->resend_at = machine->now_ns() + c->timeout * MILLISECOND;
}

static void time_segment(struct connection *c, u32 number)
{
    c->timed_number = number;
    c->timed_at = machine->now_ns();
}

void connection_transmit(struct connection *c)
{
    u32 end = c->response_length, allowed = min(c->window, c->congestion);

    while (!c->fin_acked && c->next - c->acked <= end) {
        u32 sent = c->next - c->acked;
        u32 length = min(min(end - sent, c->mss), allowed > sent ? allowed - sent : 0);
        bool last = sent + length == end, fin = last && c->closing;
        if (!length && !fin)
            break;
        if (!last && length < c->mss && sent)
            break;                      /* a small piece can wait until more is allowed */
        if (before(c->next, c->highest))
            counts.resent++;
        else if (!c->timed_at)
            time_segment(c, c->next + length);
        connection_send(c, c->next, ACK | (last ? PSH : 0) | (fin ? FIN : 0), c->responses + sent, length);
        c->next += length + fin;
        if (before(c->highest, c->next))
            c->highest = c->next;
        if (!c->resend_at)
            set_resend_timer(c);
        if (fin)
            break;
    }
    if (!c->resend_at && end)           /* the peer's window is closed: ask again later */
        set_resend_timer(c);
    if (c->ack_due)
        connection_send(c, c->next, ACK, NULL, 0);
}

void connection_resend(struct connection *c)
{
    c->timeout = min(2 * c->timeout, LONGEST_TIMEOUT);
    c->timed_at = 0;                    /* Karn: an ACK of it would be for either */
    c->next = c->acked;
    c->congestion = c->mss;
    set_resend_timer(c);
    if (c->window == 0 && c->response_length) {     /* one byte makes the peer say what its window is */
        connection_send(c, c->acked, ACK, c->responses, 1);
        if (before(c->highest, c->acked + 1))
            c->highest = c->acked + 1;
    } else {
        connection_transmit(c);
    }
}

static void measure(struct connection *c, u32 ack)
{
    if (!c->timed_at || before(ack, c->timed_number))
        return;
    u32 took = divide(machine->now_ns() - c->timed_at, MILLISECOND);
    if (!c->smoothed) {
        c->smoothed = took + 1;
        c->variation = took / 2;
    } else {
        u32 off = took > c->smoothed ? took - c->smoothed : c->smoothed - took;
        c->variation = (3 * c->variation + off) / 4;
        c->smoothed = (7 * c->smoothed + took) / 8;
    }
    c->timed_at = 0;
}

static u32 base_timeout(const struct connection *c)
{
    u32 ms = c->smoothed ? c->smoothed + 4 * c->variation : FIRST_TIMEOUT;
    return ms < LEAST_TIMEOUT ? LEAST_TIMEOUT : min(ms, LONGEST_TIMEOUT);
}

void connection_take_ack(struct connection *c, const struct segment *s)
{
    u32 acked = s->ack - c->acked;

    if (before(c->acked, s->ack) && !before(c->highest, s->ack)) {
        measure(c, s->ack);
        u32 bytes = min(acked, c->response_length);
        memmove(c->responses, c->responses + bytes, c->response_length - bytes);
        c->response_length -= bytes;
        c->fin_acked = acked > bytes;
        c->acked = s->ack;
        if (before(c->next, s->ack))
            c->next = s->ack;
        c->congestion = min(c->congestion + acked, RESPONSE_ROOM);
        c->timeout = base_timeout(c);
        c->heard_at = c->served_at = machine->now_ns();
        c->resend_at = 0;
        if (c->next != c->acked)
            set_resend_timer(c);
    }
    if (before(c->window_seq, s->seq) || (c->window_seq == s->seq && !before(s->ack, c->window_ack))) {
        if (!c->window && s->window)    /* it opens: no more asking, but sending */
            c->resend_at = 0, c->timeout = base_timeout(c);
        c->window = s->window;
        c->window_seq = s->seq;
        c->window_ack = s->ack;
    }
}
