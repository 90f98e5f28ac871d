/* The two rings of a Xen network card: frames out, frames in. */
#pragma once
#include "grant.h"
#include "types.h"

/* Which numbers of the grant table the card uses. */
enum {
    RINGS_TX_GRANT = GRANTS_FIRST,
    RINGS_RX_GRANT,
    RINGS_BUFFER_GRANTS,
};

void rings_start(u16 backend, u32 port);  /* empty rings, granted to that domain */
bool rings_send(const void *frame, u32 length);
u32 rings_receive(void *frame, u32 room);
bool rings_may_sleep(void);             /* no frame waits, and an event will tell of the next */
void rings_drain(u64 deadline);         /* wait until all frames have gone out, or that Xen time */
