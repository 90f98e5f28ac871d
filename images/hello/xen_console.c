/*
 * The Xen console, output only: a ring of 2 KiB that xenconsoled in dom0 empties.
 *
 * The tools made the ring and its event channel before the guest began. When the ring is full we
 * wait, but not for ever: a guest must serve even if nobody reads its console.
 */
#include "xen_console.h"

#include "hypercall.h"
#include "io.h"
#include "shared_page.h"
#include "text.h"
#include "xen_abi.h"

/* xenconsoled leaves a guest that prints much alone for 200 ms at a time; we wait a little longer. */
#define PATIENCE (500 * MILLISECOND)

static volatile struct console_ring *ring;
static u32 port;

bool xen_console_start(void)
{
    ring = (void *)(hvm_param(HVM_PARAM_CONSOLE_PFN) * PAGE_SIZE);
    port = hvm_param(HVM_PARAM_CONSOLE_EVTCHN);
    return ring && port;
}

static u32 room(void)
{
    u32 used = ring->out_prod - ring->out_cons;

    return used < sizeof ring->out ? sizeof ring->out - used : 0;
}

static bool wait_for_room(void)
{
    u64 deadline = xen_time() + PATIENCE;

    while (!room()) {
        if (xen_time() >= deadline)
            return false;
        sleep_until_event(&port, 1, deadline);
        event_take(port);
    }
    return true;
}

void xen_console_print(const char *text, u32 length)
{
    while (length && wait_for_room()) {
        u32 prod = ring->out_prod, part = min(length, room());

        for (u32 i = 0; i < part; i++)
            ring->out[(prod + i) % sizeof ring->out] = text[i];
        barrier();                      /* the text is there before the index says so */
        ring->out_prod = prod + part;
        event_channel_notify(port);
        text += part;
        length -= part;
    }
}
