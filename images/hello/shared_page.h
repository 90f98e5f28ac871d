/* The page Xen shares with this domain: which events are pending, and what time it is. */
#pragma once
#include "types.h"

bool shared_page_map(void);             /* at start, and again after a restore */

bool event_take(u32 port);              /* was an event pending? it is not any more */

u64 xen_time(void);                     /* Xen's system time: ns since the host booted */
u64 xen_wall_clock(void);               /* seconds since 1970 */
