/*
 * The Xen network card: connecting and disconnecting.
 *
 * Both halves show their state in Xenstore. The back end waits in InitWait until we have published
 * where our rings are and say Connected; then it connects too. When a vif is detached it goes to
 * Closing, and back to InitWait if one is attached anew. The rings are in netfront_rings.c.
 *
 * What we ask of the back end:
 * - request-rx-copy: it copies frames into our pages (the only way Linux offers).
 * - feature-rx-notify: we tell it when we have made room for frames.
 * - feature-no-csum-offload: it completes the TCP and UDP checksums of what it gives us. Without
 *   this, frames from dom0 itself and from guests beside us come with a checksum that was never
 *   computed, which our network code would rightly refuse. For IPv6 that is so unless one asks for
 *   the contrary.
 * Not offered, and so never used against us: scatter-gather and segmentation offload (each frame
 * is at most one MTU in one page), several queues, a second event channel.
 */
#include "netfront.h"

#include "console.h"
#include "hypercall.h"
#include "netfront_rings.h"
#include "shared_page.h"
#include "text.h"
#include "xen_abi.h"
#include "xenstore.h"

/* A back end is ready before the guest starts; only a very busy dom0 takes longer than an instant. */
#define CONNECT_PATIENCE (20 * SECOND)
#define CLOSE_PATIENCE (1 * SECOND)

static char backend_state[XENSTORE_TEXT];  /* the path of the back end's state */
static u32 port;                        /* 0: not published */
static bool connected;
static bool closing;                    /* it was our wish */

u32 netfront_port(void)
{
    return port;
}

/* Read where the back end is, and let changes of its state be told. */
static bool find_backend(u16 *domain)
{
    struct text path = {.start = backend_state, .room = sizeof backend_state - 1};
    char backend[XENSTORE_TEXT];

    *domain = (u16)xenstore_read_number("device/vif/0/backend-id", 0);
    if (!xenstore_read("device/vif/0/backend", backend, sizeof backend))
        return false;
    memset(backend_state, 0, sizeof backend_state);
    put(&path, "%s/state", backend);
    return !path.cut;
}

static bool say_state(enum xenbus_state state)
{
    return xenstore_write_number("device/vif/0/state", state);
}

static void publish(void)
{
    u16 domain;

    if (!find_backend(&domain) || !(port = event_channel_open(domain)))
        return;
    rings_start(domain, port);
    xenstore_write_number("device/vif/0/tx-ring-ref", RINGS_TX_GRANT);
    xenstore_write_number("device/vif/0/rx-ring-ref", RINGS_RX_GRANT);
    xenstore_write_number("device/vif/0/event-channel", port);
    xenstore_write("device/vif/0/request-rx-copy", "1");
    xenstore_write("device/vif/0/feature-rx-notify", "1");
    xenstore_write("device/vif/0/feature-no-csum-offload", "1");
    say_state(XENBUS_connected);
}

static void disconnect(void)
{
    if (port)
        event_channel_close(port);
    port = 0;
    connected = false;
}

void netfront_backend_changed(void)
{
    switch (xenstore_read_number(backend_state, XENBUS_unknown)) {
    case XENBUS_init_wait:
        if (!port)
            publish();
        break;
    case XENBUS_connected:
        connected = port != 0;
        break;
    case XENBUS_closing:
    case XENBUS_closed:
    case XENBUS_unknown:
        if (!port)
            break;
        if (!closing)
            say("network card detached");
        disconnect();
        say_state(XENBUS_closed);
        break;
    default:                            /* on its way */
        break;
    }
}

/* Follow the back end until it is as wanted; false after that time. */
static bool follow_backend(bool (*as_wanted)(void), u64 patience)
{
    u32 store = xenstore_port();
    u64 deadline = xen_time() + patience;

    while (!as_wanted()) {
        if (xen_time() >= deadline)
            return false;
        if (!xenstore_any_changed())
            sleep_until_event(&store, 1, deadline);
        event_take(store);
        if (xenstore_changed(WATCH_BACKEND))
            netfront_backend_changed();
    }
    return true;
}

static bool is_connected(void)
{
    return connected;
}

static bool is_disconnected(void)
{
    return !port;
}

static u8 hex_digit(char digit)
{
    return (u8)(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
}

/* "00:16:3e:aa:bb:cc", as the tools wrote it */
static bool read_mac(u8 mac[6])
{
    char text[XENSTORE_TEXT];

    if (!xenstore_read("device/vif/0/mac", text, sizeof text) || strlen(text) != 17)
        return false;
    for (u32 i = 0; i < 6; i++)
        mac[i] = (u8)(hex_digit(text[3 * i]) << 4 | hex_digit(text[3 * i + 1]));
    return true;
}

bool netfront_open(u8 mac[6])
{
    u16 domain;

    if (!read_mac(mac) || !find_backend(&domain))
        return false;
    xenstore_watch(WATCH_BACKEND, backend_state);
    if (!follow_backend(is_connected, CONNECT_PATIENCE))
        say("netback has not connected within 20 s; it still may");
    return true;
}

void netfront_reopen(void)
{
    u16 domain;

    port = 0;
    connected = false;
    if (find_backend(&domain)) {
        xenstore_watch(WATCH_BACKEND, backend_state);
        follow_backend(is_connected, CONNECT_PATIENCE);
    }
}

bool netfront_send(const void *frame, u32 length)
{
    return connected && rings_send(frame, length);
}

u32 netfront_receive(void *frame, u32 room)
{
    return connected ? rings_receive(frame, room) : 0;
}

bool netfront_may_sleep(void)
{
    return !connected || rings_may_sleep();
}

void netfront_close(void)
{
    if (!connected)
        return;
    closing = true;
    rings_drain(xen_time() + CLOSE_PATIENCE);
    say_state(XENBUS_closing);
    follow_backend(is_disconnected, CLOSE_PATIENCE);
}
