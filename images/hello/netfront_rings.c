/*
 * The two rings of a Xen network card.
 *
 * A ring is one shared page of requests that turn into responses in place. Indices count for ever;
 * the place of an index is index % NETIF_RING_ENTRIES. All pages are granted when the rings start:
 * frames to send are read-only for the back end, frames received it writes into a page of ours.
 * Since it may write there at any time, a frame is copied out before anybody looks at it.
 */
#include "netfront_rings.h"

#include "console.h"
#include "hypercall.h"
#include "io.h"
#include "shared_page.h"
#include "text.h"
#include "xen_abi.h"

/* RX takes a page for each frame (Xen's interface wants that); TX has two frames in a page. */
enum { RX_BUFFERS = 64, TX_BUFFERS = 64, TX_BUFFER_SIZE = 2048, TX_PER_PAGE = 2 };

static volatile struct netif_tx_ring tx_ring;
static volatile struct netif_rx_ring rx_ring;
static u8 rx_buffer[RX_BUFFERS][PAGE_SIZE] PAGE_ALIGNED;
static u8 tx_buffer[TX_BUFFERS][TX_BUFFER_SIZE] PAGE_ALIGNED;

static u32 event_port;
static u32 rx_cons, tx_cons;            /* responses seen */
static u8 tx_free[TX_BUFFERS];          /* a stack of unused TX buffers */
static u32 tx_free_count;
static bool tx_busy[TX_BUFFERS];

_Static_assert(NETIF_RING_ENTRIES % RX_BUFFERS == 0, "rx_offer: a place always has one buffer");

static u32 rx_grant(u32 buffer)
{
    return RINGS_BUFFER_GRANTS + buffer;
}

static u32 tx_grant(u32 buffer)
{
    return RINGS_BUFFER_GRANTS + RX_BUFFERS + buffer / TX_PER_PAGE;
}

/* Show requests up to `prod`; wake the back end if it asked for that one of them. */
static void push(volatile struct ring_header *ring, u32 prod)
{
    u32 before = ring->req_prod;

    barrier();                          /* the requests are there before the index says so */
    ring->req_prod = prod;
    barrier();                          /* and the index before we read whether it sleeps */
    if (prod - ring->req_event < prod - before)
        event_channel_notify(event_port);
}

/* Offer the RX buffer of that index. Responses come in the order of requests, so no list is kept. */
static void rx_offer(u32 index)
{
    volatile union netif_rx_entry *entry = &rx_ring.entry[index % NETIF_RING_ENTRIES];
    u32 buffer = index % RX_BUFFERS;

    entry->request.id = (u16)buffer;
    entry->request.grant = rx_grant(buffer);
}

void rings_start(u16 backend, u32 port)
{
    event_port = port;
    memset((void *)&tx_ring, 0, sizeof tx_ring);
    memset((void *)&rx_ring, 0, sizeof rx_ring);
    tx_ring.header.req_event = tx_ring.header.rsp_event = 1;
    rx_ring.header.req_event = rx_ring.header.rsp_event = 1;
    rx_cons = tx_cons = tx_free_count = 0;

    grant(RINGS_TX_GRANT, backend, (void *)&tx_ring, READ_WRITE);
    grant(RINGS_RX_GRANT, backend, (void *)&rx_ring, READ_WRITE);
    for (u32 i = 0; i < RX_BUFFERS; i++) {
        grant(rx_grant(i), backend, rx_buffer[i], READ_WRITE);
        rx_offer(i);
    }
    for (u32 i = 0; i < TX_BUFFERS; i++) {
        if (i % TX_PER_PAGE == 0)
            grant(tx_grant(i), backend, tx_buffer[i], READ_ONLY);
        tx_free[tx_free_count++] = (u8)i;
        tx_busy[i] = false;
    }
    push(&rx_ring.header, RX_BUFFERS);
}

/* Take back the buffers of frames that have gone out. */
static void tx_reap(void)
{
    u32 prod = tx_ring.header.rsp_prod;

    barrier();
    for (; tx_cons != prod && tx_free_count < TX_BUFFERS; tx_cons++) {
        u32 buffer = tx_ring.entry[tx_cons % NETIF_RING_ENTRIES].response.id;

        if (buffer < TX_BUFFERS && tx_busy[buffer]) {
            tx_busy[buffer] = false;
            tx_free[tx_free_count++] = (u8)buffer;
        }
    }
}

/* No event is asked for when frames have gone out: it is enough to look when sending the next. */
bool rings_send(const void *frame, u32 length)
{
    u32 prod = tx_ring.header.req_prod, buffer;
    volatile union netif_tx_entry *entry = &tx_ring.entry[prod % NETIF_RING_ENTRIES];

    tx_reap();
    if (!tx_free_count || length > TX_BUFFER_SIZE)
        return false;
    buffer = tx_free[--tx_free_count];
    tx_busy[buffer] = true;
    memcpy(tx_buffer[buffer], frame, length);
    entry->request.grant = tx_grant(buffer);
    entry->request.offset = (u16)(buffer % TX_PER_PAGE * TX_BUFFER_SIZE);
    entry->request.flags = 0;           /* checksums are complete, nothing follows */
    entry->request.id = (u16)buffer;
    entry->request.size = (u16)length;
    push(&tx_ring.header, prod + 1);
    return true;
}

/*
 * Copy the frame of one response if it is a whole one; 0 if it is not. The flags refused are those of features we
 * have not offered, so that only a back end that ignores our wishes uses them: a frame in several
 * pages, and one whose checksum is left to us. The frame is lost, as on a wire.
 */
static u32 rx_copy(u32 index, void *frame, u32 room)
{
    volatile union netif_rx_entry *entry = &rx_ring.entry[index % NETIF_RING_ENTRIES];
    u32 offset = entry->response.offset, flags = entry->response.flags;
    i32 length = entry->response.status;
    static bool told;

    if (flags & (NETRXF_csum_blank | NETRXF_more_data | NETRXF_extra_info)) {
        if (!told)
            say("netback sends frames we cannot take (flags %x); they are dropped", flags);
        told = true;
        return 0;
    }
    if (length <= 0 || (u32)length > room || offset + (u32)length > PAGE_SIZE)
        return 0;
    memcpy(frame, rx_buffer[index % RX_BUFFERS] + offset, (u32)length);
    return (u32)length;
}

u32 rings_receive(void *frame, u32 room)
{
    for (;;) {
        u32 length;

        if (rx_cons == rx_ring.header.rsp_prod)
            return 0;
        barrier();                      /* the index is read before the response it speaks of */
        length = rx_copy(rx_cons, frame, room);
        rx_offer(rx_cons + RX_BUFFERS);
        rx_cons++;
        push(&rx_ring.header, rx_cons + RX_BUFFERS);
        if (length)
            return length;
    }
}

bool rings_may_sleep(void)
{
    rx_ring.header.rsp_event = rx_cons + 1;
    barrier();                          /* ask for an event first, then look once more */
    return rx_cons == rx_ring.header.rsp_prod;
}

void rings_drain(u64 deadline)
{
    for (tx_reap(); tx_free_count < TX_BUFFERS && xen_time() < deadline; tx_reap()) {
        tx_ring.header.rsp_event = tx_ring.header.req_prod;
        barrier();
        if (tx_ring.header.rsp_prod != tx_ring.header.req_prod)
            sleep_until_event(&event_port, 1, deadline);
        event_take(event_port);
    }
}
