/* What the rest asks of the machine: pc.c answers on QEMU and KVM, xen.c on Xen (PVH). */
#pragma once
#include "types.h"

struct platform {
    const char *name;                                   /* shown on the page: "QEMU" / "Xen" */
    void (*start)(const void *boot_info);               /* first: console, clock, interrupts; may use nothing else */
    void (*print)(const char *text, u32 length);        /* raw bytes to the console */
    u64  (*now_ns)(void);                               /* monotonic, since start */
    u64  (*wall_s)(void);                               /* seconds since 1970 at the moment of the call */
    bool (*open_nic)(u8 mac[6]);                        /* find and start the network card; false: there is none */
    bool (*send)(const void *frame, u32 length);        /* copy and queue one Ethernet frame; false: no room, dropped */
    u32  (*receive)(void *frame, u32 room);             /* copy one received frame; returns its length, 0 if none */
    void (*wait)(u64 until_ns);                         /* sleep (processor idle) until a frame or event may be there, or that time */
    void (*ready)(const char *address);                 /* tell the host that we serve there, if it can be told */
    bool (*asked_to_stop)(void);                        /* ACPI power button / Xenstore control/shutdown */
    void (*power_off)(void) __attribute__((noreturn));
};

extern const struct platform pc_platform, xen_platform;
