/* Calls into Xen: the hypercall page and a typed function for each call this guest makes. */
#pragma once
#include "types.h"

/* Ask Xen to fill in the hypercall page; every other function here needs it. False: not on Xen. */
bool hypercall_start(void);

/* The value of one HVM_PARAM_*; 0 if there is none. */
u32 hvm_param(u32 index);

/* Put Xen's page `index` of that XENMAPSPACE_* in place of the guest's own page at `address`. */
bool map_xen_page(u32 space, u32 index, void *address);

/* A new event channel that domain `remote` may bind; 0 if Xen has none left. */
u32 event_channel_open(u16 remote);
void event_channel_close(u32 port);
void event_channel_notify(u32 port);

/*
 * Let the vCPU sleep until an event is pending on one of the ports or Xen's system time (in
 * nanoseconds; 0: no limit) is reached. Returns at once if an event is pending already.
 */
void sleep_until_event(const u32 *ports, u32 count, u64 system_time);

/* End the domain for that SHUTDOWN_* reason. Returns only from SHUTDOWN_suspend: 0 as the restored
 * domain, otherwise the suspend was cancelled and nothing has changed. */
i32 shutdown(u32 reason);
