/*
 * The machine "Xen (PVH)": what platform.h asks, answered with hypercalls and shared pages.
 *
 *   hypercall.c       calls into Xen                 grant.c           pages dom0 may reach
 *   shared_page.c     events pending, clock          xen_console.c     the console
 *   xenstore.c        where to find what             netfront.c        the network card
 *   xen_abi.h         layouts and numbers            netfront_rings.c  its rings
 *
 * There is no other hardware: no interrupt controller, no timer, no PCI. The vCPU sleeps in Xen
 * until an event or a time, and runs with interrupts off all its life.
 */
#include "console.h"
#include "grant.h"
#include "hypercall.h"
#include "interrupts.h"
#include "io.h"
#include "net.h"
#include "netfront.h"
#include "platform.h"
#include "shared_page.h"
#include "text.h"
#include "xen_abi.h"
#include "xen_console.h"
#include "xenstore.h"

static u64 start_time;                  /* in xen_time() */
static i32 stop_reason = -1;            /* a SHUTDOWN_* reason once we were asked to stop */
static char ready_at[16];               /* the address where we serve; empty before */

static u64 now_ns(void)
{
    return xen_time() - start_time;
}

/* All that a restored domain has to do anew as well. False: no console to complain on. */
static bool connect_to_xen(void)
{
    if (!hypercall_start() || !shared_page_map() || !xen_console_start())
        return false;
    if (!xenstore_start() || !grants_start())
        fatal("this Xen gives the guest no Xenstore or no grant table");
    xenstore_watch(WATCH_SHUTDOWN, "control/shutdown");
    return true;
}

static void start(const void *boot_info)
{
    (void)boot_info;                    /* says nothing that we need */
    if (!connect_to_xen())
        for (;;)
            __asm__ volatile("hlt");
    start_time = xen_time();
    interrupts_start();                 /* not for interrupts: to tell of an exception before the end */
}

/* Tools wait for this key, and libxl lets a guest write below data. */
static void ready(const char *address)
{
    memcpy(ready_at, address, strlen(address) + 1);
    xenstore_write("data/ready", ready_at);
}

/* Be saved with the whole domain; when this returns we are the restored one, or it was cancelled. */
static void suspend(void)
{
    u64 before = now_ns();

    if (shutdown(SHUTDOWN_suspend) != 0)
        return;
    if (!connect_to_xen())
        shutdown(SHUTDOWN_crash);
    start_time = xen_time() - before;   /* another host's clock, or much later on this one */
    netfront_reopen();
    net_moved();
    if (ready_at[0])
        xenstore_write("data/ready", ready_at);     /* Xenstore knows nothing of before */
    say("restored");
}

/* The tools write what they want of us, and wait until we empty it as a sign that we have seen it. */
static void obey_tools(void)
{
    char wish[XENSTORE_TEXT];

    if (!xenstore_read("control/shutdown", wish, sizeof wish) || !wish[0])
        return;
    xenstore_write("control/shutdown", "");
    if (same_text(wish, "poweroff") || same_text(wish, "halt"))
        stop_reason = SHUTDOWN_poweroff;
    else if (same_text(wish, "reboot"))
        stop_reason = SHUTDOWN_reboot;
    else if (same_text(wish, "suspend"))
        suspend();
    else
        say("control/shutdown: \"%s\" is not known here", wish);
}

static void wait(u64 until_ns)
{
    u32 ports[2] = {xenstore_port(), netfront_port()};
    u32 count = ports[1] ? 2 : 1;

    if (!xenstore_any_changed() && netfront_may_sleep() && now_ns() < until_ns)
        sleep_until_event(ports, count, until_ns == FOREVER ? 0 : start_time + until_ns);
    for (u32 i = 0; i < count; i++)
        event_take(ports[i]);
    if (xenstore_changed(WATCH_BACKEND))
        netfront_backend_changed();
    if (xenstore_changed(WATCH_SHUTDOWN))
        obey_tools();
}

static bool asked_to_stop(void)
{
    return stop_reason >= 0;
}

static __attribute__((noreturn)) void power_off(void)
{
    static bool ending;

    if (!ending) {                      /* no second time, if the first ended in an exception */
        ending = true;
        netfront_close();
    }
    for (;;)
        shutdown(stop_reason == SHUTDOWN_reboot ? SHUTDOWN_reboot : SHUTDOWN_poweroff);
}

const struct platform xen_platform = {
    .name = "Xen",
    .start = start,
    .print = xen_console_print,
    .now_ns = now_ns,
    .wall_s = xen_wall_clock,
    .open_nic = netfront_open,
    .send = netfront_send,
    .receive = netfront_receive,
    .wait = wait,
    .ready = ready,
    .asked_to_stop = asked_to_stop,
    .power_off = power_off,
};
