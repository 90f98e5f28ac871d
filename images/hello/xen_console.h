/* The Xen console: what `xl console`, `virsh console` and xenconsoled's log show. */
#pragma once
#include "types.h"

bool xen_console_start(void);           /* at start, and again after a restore */
void xen_console_print(const char *text, u32 length);
