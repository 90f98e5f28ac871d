/*
 * What Xen and its tools agree on with a 32-bit guest: numbers and the layout of shared memory.
 *
 * Written from Xen 4.17's public interface, which promises never to change; each part names the
 * public header that defines it. Only what this guest uses is here, under the headers' own names
 * (shortened where the context says the rest). Layouts are checked by _Static_assert, because a
 * field at the wrong offset would show as a silent guest.
 */
#pragma once
#include "types.h"

typedef signed char i8;
typedef short i16;

#define PAGE_SIZE 4096u
#define PAGE_ALIGNED __attribute__((aligned(4096)))

#define DOMID_SELF 0x7ff0u /* xen.h: "the domain that calls" */

/* xen.h: hypercall numbers */
enum { MEMORY_OP = 12, SCHED_OP = 29, EVENT_CHANNEL_OP = 32, HVM_OP = 34 };

/* arch-x86/cpuid.h: leaf base+0 carries the signature, leaf base+2 the hypercall page's MSR */
enum { CPUID_XEN_FIRST = 0x40000000, CPUID_XEN_LAST = 0x40010000, CPUID_XEN_STEP = 0x100 };

/* memory.h: puts one of Xen's own pages at an address of the guest's choice */
enum { XENMEM_add_to_physmap = 7 };
enum { XENMAPSPACE_shared_info = 0, XENMAPSPACE_grant_table = 1 };
struct add_to_physmap {
    u16 domid;
    u16 size; /* used by another map space only */
    u32 space;
    u32 index;
    u32 gpfn; /* guest page number */
};
_Static_assert(sizeof(struct add_to_physmap) == 16, "memory.h");

/* sched.h */
enum { SCHEDOP_shutdown = 2, SCHEDOP_poll = 3 };
enum { SHUTDOWN_poweroff = 0, SHUTDOWN_reboot = 1, SHUTDOWN_suspend = 2, SHUTDOWN_crash = 3 };
struct sched_poll {
    const u32 *ports;
    u32 port_count;
    u64 timeout; /* absolute, in nanoseconds of Xen's system time; 0: none */
};
_Static_assert(sizeof(struct sched_poll) == 16, "sched.h");

/* event_channel.h */
enum { EVTCHNOP_close = 3, EVTCHNOP_send = 4, EVTCHNOP_alloc_unbound = 6 };
struct evtchn_alloc_unbound {
    u16 domain, remote_domain;
    u32 port; /* out */
};

/* hvm/hvm_op.h, hvm/params.h */
enum { HVMOP_get_param = 1 };
enum {
    HVM_PARAM_STORE_PFN = 1,
    HVM_PARAM_STORE_EVTCHN = 2,
    HVM_PARAM_CONSOLE_PFN = 17,
    HVM_PARAM_CONSOLE_EVTCHN = 18,
};
struct hvm_param {
    u16 domid;
    u16 padding;
    u32 index;
    u64 value;
};
_Static_assert(sizeof(struct hvm_param) == 16, "hvm/hvm_op.h");

/* xen.h: time of one vCPU; version is odd while Xen writes */
struct vcpu_time_info {
    u32 version;
    u32 padding;
    u64 tsc_timestamp; /* time stamp counter at the last update */
    u64 system_time;   /* nanoseconds since Xen booted, at the last update */
    u32 tsc_to_system_mul;
    i8 tsc_shift;
    u8 flags;
    u8 padding2[2];
};

struct vcpu_info {
    u8 upcall_pending;
    u8 upcall_mask;
    u32 pending_selector;
    u32 arch[6];
    struct vcpu_time_info time;
};
_Static_assert(sizeof(struct vcpu_info) == 64, "xen.h");

/* xen.h: the page Xen shares with each domain, as a 32-bit guest sees it */
struct shared_info {
    struct vcpu_info vcpu[32];
    u32 event_pending[32]; /* one bit for each of the 1,024 event channels */
    u32 event_mask[32];
    u32 wc_version; /* wall clock when Xen's system time was 0; version as above */
    u32 wc_sec;
    u32 wc_nsec;
};
_Static_assert(__builtin_offsetof(struct shared_info, wc_version) == 2304, "xen.h");

/* grant_table.h: entry of a version 1 grant table */
enum { GTF_permit_access = 1 << 0, GTF_readonly = 1 << 2 };
enum { GNTTAB_RESERVED_ENTRIES = 8 }; /* the first entries belong to the tools */
struct grant_entry {
    u16 flags;
    u16 domid; /* who may reach the page */
    u32 frame;
};

/* io/console.h: an index counts bytes for ever; its place in the ring is index % size */
struct console_ring {
    u8 in[1024];
    u8 out[2048];
    u32 in_cons, in_prod;
    u32 out_cons, out_prod;
};

/* io/xs_wire.h: each message is this header and `length` bytes */
enum {
    XS_READ = 2,
    XS_WATCH = 4,
    XS_WRITE = 11,
    XS_WATCH_EVENT = 15,
    XS_ERROR = 16,
};
struct xenstore_header {
    u32 type;
    u32 request_id;
    u32 transaction_id;
    u32 length;
};
struct xenstore_ring {
    u8 request[1024];
    u8 response[1024];
    u32 request_cons, request_prod;
    u32 response_cons, response_prod;
};

/* io/xenbus.h: the states of either half of a device */
enum xenbus_state {
    XENBUS_unknown = 0,
    XENBUS_initialising = 1,
    XENBUS_init_wait = 2,
    XENBUS_initialised = 3,
    XENBUS_connected = 4,
    XENBUS_closing = 5,
    XENBUS_closed = 6,
};

/* io/ring.h: what precedes the entries in a shared ring page */
struct ring_header {
    u32 req_prod, req_event; /* requests made; Xen wakes the back end when req_event is passed */
    u32 rsp_prod, rsp_event; /* likewise for responses and the front end */
    u8 padding[48];
};

/* io/netif.h: each ring's entries are a union of request and response */
enum { NETIF_RING_ENTRIES = 256 };
enum {
    NETRXF_csum_blank = 1 << 1,
    NETRXF_more_data = 1 << 2,
    NETRXF_extra_info = 1 << 3,
};
union netif_tx_entry {
    struct {
        u32 grant;
        u16 offset, flags, id, size;
    } request;
    struct {
        u16 id;
        i16 status;
    } response;
};
union netif_rx_entry {
    struct {
        u16 id, padding;
        u32 grant;
    } request;
    struct {
        u16 id, offset, flags;
        i16 status; /* length of the frame, or a negative error */
    } response;
};
struct netif_tx_ring {
    struct ring_header header;
    union netif_tx_entry entry[NETIF_RING_ENTRIES];
} PAGE_ALIGNED;
struct netif_rx_ring {
    struct ring_header header;
    union netif_rx_entry entry[NETIF_RING_ENTRIES];
} PAGE_ALIGNED;
_Static_assert(__builtin_offsetof(struct netif_tx_ring, entry) == 64, "io/ring.h");
_Static_assert(sizeof(union netif_tx_entry) == 12, "io/netif.h");
_Static_assert(sizeof(union netif_rx_entry) == 8, "io/netif.h");
_Static_assert(sizeof(struct netif_tx_ring) == PAGE_SIZE, "a ring shares its page with nothing");
_Static_assert(sizeof(struct netif_rx_ring) == PAGE_SIZE, "a ring shares its page with nothing");
