/* The Xen network card: our half of a vif, whose other half (netback) is in dom0. */
#pragma once
#include "types.h"

/* Find the first vif, connect it and return its MAC address; false: this domain has none. */
bool netfront_open(u8 mac[6]);
void netfront_reopen(void);             /* after a restore, which lost the connection */

bool netfront_send(const void *frame, u32 length);
u32 netfront_receive(void *frame, u32 room);
bool netfront_may_sleep(void);          /* no frame waits, and an event will tell of the next */

void netfront_backend_changed(void);    /* to be called on WATCH_BACKEND */
u32 netfront_port(void);                /* the event channel that announces frames; 0: none now */
void netfront_close(void);              /* before power-off: the last frames go out first */
